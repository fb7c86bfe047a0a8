"""
The canonical form of a manifest: no comments, no empty lines, sorted by PATH, one line end each.

`canonicalise` makes it from a file of any length in bounded memory: lines that are in order are copied, others are
sorted in runs, and the runs are merged.
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from operator import le
from typing import IO, NamedTuple

from blake3 import blake3

from snapferry.stores.runtime.interruption import checkpoint

# The most lines, and about the most bytes, that are sorted at once: some 50 MB of memory.
RUN_LINES = 100_000
RUN_BYTES = 8 * 1024 * 1024

_PIECE_BYTES = 64 * 1024

# Bytes of all runs that a merge has in memory, and the least bytes of each.
_MERGE_BYTES = 4 * 1024 * 1024
_LEAST_BYTES = 4096

# The most lines and bytes between two checkpoints of a merge: some milliseconds.
_LINES_AT_ONCE = 10_000
_BYTES_AT_ONCE = 4 * 1024 * 1024

# A merge holds up to five times the longest line of each run. More runs than fit are merged in several passes.
_FAN_IN_BYTES = 64 * 1024 * 1024
_LEAST_FAN_IN = 12


class Canonical(NamedTuple):
    """A text in canonical form: *file* holds *length* bytes that hash to *digest*. The holder must close it."""

    file: IO[bytes]
    length: int
    digest: str


def canonical(text: bytes) -> bytes:
    """Return *text*, which fits in memory, in canonical form."""
    lines = sorted(_meant(text), key=path_of)
    return b"\n".join(lines) + b"\n"


def canonicalise(file: IO[bytes]) -> Canonical | None:
    """
    Return the text of *file* in canonical form, in a temporary file.

    None for a text that is not a manifest in any form: it has a line of fewer than five fields. No line may be longer
    than `bounds.LONGEST_LINE`. Raises OSError where the temporary directory is full.
    """
    sorted_runs = _Runs()
    try:
        for run in _runs(file):
            if any(len(line.split(b" ", 4)) != 5 for line in run):
                sorted_runs.close()
                return None
            sorted_runs.add(run)
        if not sorted_runs.length:
            # A manifest without entries is one line end.
            sorted_runs.add([b""])
        return sorted_runs.merged()
    except BaseException:
        sorted_runs.close()
        raise


def path_of(line: bytes) -> bytes:
    """Return the PATH of a line without its end, or the whole line if it has none."""
    return line.split(b" ", 4)[-1]


def _meant(text: bytes) -> Iterable[bytes]:
    return (line for line in text.split(b"\n") if line and not line.startswith(b"#"))


def _runs(file: IO[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines that belong to the manifest, some at a time."""
    file.seek(0)
    run: list[bytes] = []
    size, rest = 0, b""
    while piece := file.read(_PIECE_BYTES):
        checkpoint()
        whole, _, rest = (rest + piece).rpartition(b"\n")
        lines = list(_meant(whole))
        run += lines
        size += sum(map(len, lines))
        if len(run) >= RUN_LINES or size >= RUN_BYTES:
            yield run
            run, size = [], 0
    run.extend(_meant(rest))
    if run:
        yield run


class _Runs:
    """Runs of lines, each sorted, one after the other in a temporary file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()
        self._hasher = blake3()
        self._starts: list[int] = []
        self._longest = 1
        self._last = b""
        self._in_order = True
        self.length = 0

    def add(self, run: list[bytes]) -> None:
        paths = [path_of(line) for line in run]
        in_order = all(map(le, paths, islice(paths, 1, None)))
        if not in_order:
            run.sort(key=path_of)
        self._in_order = self._in_order and in_order and self._last <= paths[0]
        self._last = paths[-1]
        longest = max(map(len, run))
        self._longest = max(self._longest, longest)
        self._starts.append(self.length)
        self._write(b"\n".join(run) + b"\n")

    def merged(self) -> Canonical:
        """Return all lines in order. Do not use the runs afterwards."""
        self._file.flush()
        if self._in_order:
            return Canonical(self._file, self.length, self._hasher.hexdigest())
        fan_in = max(_LEAST_FAN_IN, _FAN_IN_BYTES // (5 * self._longest))
        if len(self._starts) > fan_in:
            return self._merged_by(fan_in).merged()
        one = self._merged_by(len(self._starts))
        return Canonical(one._file, one.length, one._hasher.hexdigest())

    def _merged_by(self, fan_in: int) -> _Runs:
        """Merge *fan_in* neighbouring runs at a time; return the new runs. Closes these."""
        merged = _Runs()
        merged._longest, merged._in_order = self._longest, False
        ends = [*self._starts[1:], self.length]
        piece_bytes = max(_LEAST_BYTES, _MERGE_BYTES // min(fan_in, len(ends)))
        lines_at_once = max(1, min(_LINES_AT_ONCE, _BYTES_AT_ONCE // self._longest))
        try:
            for first in range(0, len(ends), fan_in):
                some = slice(first, first + fan_in)
                runs = [
                    _lines_between(self._file.fileno(), start, end, piece_bytes)
                    for start, end in zip(self._starts[some], ends[some], strict=True)
                ]
                merged._starts.append(merged.length)
                lines = heapq.merge(*runs, key=path_of)
                for text in iter(partial(_some, lines, lines_at_once), b""):
                    checkpoint()
                    merged._write(text)
            merged._file.flush()
        except BaseException:
            merged.close()
            raise
        self.close()
        return merged

    def _write(self, text: bytes) -> None:
        self._file.write(text)
        self._hasher.update(text)
        self.length += len(text)

    def close(self) -> None:
        self._file.close()


def _some(lines: Iterator[bytes], count: int) -> bytes:
    return b"".join(line + b"\n" for line in islice(lines, count))


def _lines_between(file: int, start: int, end: int, piece_bytes: int) -> Iterator[bytes]:
    rest, want = b"", piece_bytes
    while start < end:
        piece = os.pread(file, min(want, end - start), start)
        start += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        want = piece_bytes if lines else 2 * want
