"""
Read a manifest that somebody made to cost memory, and print what it cost. Run as a process of its own.

    python -m tests.hostile_manifests KIND MEGABYTES

Prints one line of JSON: what was raised, and by how many bytes the peak of the process's memory grew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from blake3 import blake3

from snapferry.stores.address import EMPTY_ADDRESS, parse_snapshot_id
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.parse import Manifest

PIECE = 1 << 20


def repeated(line: bytes) -> Iterator[bytes]:
    piece = line * (PIECE // len(line))
    while True:
        yield piece


def numbered(line: str, *, backwards: bool = False) -> Iterator[bytes]:
    lines = 5000
    for first in count(0, lines):
        numbers = range(first, first + lines)
        yield "".join(
            line.format(10**9 - n if backwards else n, digest=f"{n:064x}") for n in numbers
        ).encode()


FILE = "F 644 {digest} 1 ./{0:010}\n"

KINDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "words": lambda: repeated(b"a\n"),
    "comments": lambda: repeated(b"#\n"),
    "empty-lines": lambda: repeated(b"\n"),
    "one-line": lambda: repeated(b"x"),
    "one-path": lambda: iter([b"F 644 " + EMPTY_ADDRESS.encode() + b" 1 ", *([b"x" * PIECE] * 10_000)]),
    "lines-of-a-megabyte": lambda: repeated(
        b"F 0 " + EMPTY_ADDRESS.encode() + b" 0 ./" + b"x" * (PIECE - 80) + b"\n"
    ),
    "blanks": lambda: repeated(b"    \n"),
    "short-folders": lambda: repeated(b"D 0 0 0 p\n"),
    "unsorted": lambda: numbered(FILE, backwards=True),
    "equal-lines": lambda: repeated(b"F 644 " + EMPTY_ADDRESS.encode() + b" 1 ./a\n"),
    "many-objects": lambda: numbered(FILE),
    "huge-sizes": lambda: numbered("F 644 {digest} 9223372036854775807 ./{0:010}\n"),
    "sizes-of-400-digits": lambda: numbered("F 644 {digest} 1" + "0" * 400 + " ./{0:010}\n"),
    "negative-sizes": lambda: numbered("F 644 {digest} -1 ./{0:010}\n"),
    "nuls": lambda: repeated(b"\0" * 99 + b"\n"),
    "not-utf-8": lambda: repeated(b"F 644 " + EMPTY_ADDRESS.encode() + b" 1 ./\xff\n"),
    "carriage-returns": lambda: numbered("F 644 {digest} 1 ./{0:010}\r\n"),
    "only-carriage-returns": lambda: repeated(b"F 644 " + EMPTY_ADDRESS.encode() + b" 1 ./a\r"),
}


class Stream:
    """A reader of what a kind of manifest is made of, *size* bytes; nothing of it is kept."""

    def __init__(self, kind: str, size: int) -> None:
        self._pieces = KINDS[kind]()
        self._left = size
        self._piece = b""

    def read(self, size: int, /) -> bytes:
        if not self._piece:
            self._piece = next(self._pieces, b"")
        found, self._piece = self._piece[: min(size, self._left)], self._piece[size:]
        self._left -= len(found)
        return found


def digest_of(kind: str, size: int) -> str:
    hasher, stream = blake3(), Stream(kind, size)
    while piece := stream.read(PIECE):
        hasher.update(piece)
    return hasher.hexdigest()


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    kind, size = sys.argv[1], int(sys.argv[2]) << 20
    # Filed under its own digest, so that its lines are read, or under another, so that it is put in canonical form.
    name = digest_of(kind, size) if sys.argv[3] == "own" else EMPTY_ADDRESS
    import numpy as np  # noqa: F401 - what it costs is not the manifest's

    before, raised = peak(), ""
    try:
        with Manifest.read("a store", parse_snapshot_id(name), Stream(kind, size)) as manifest:
            manifest.table() if manifest.large else manifest.objects()
    except StoreError as error:
        raised = type(error).__name__
    print(json.dumps({"raised": raised, "grown": peak() - before}))


if __name__ == "__main__":
    main()
