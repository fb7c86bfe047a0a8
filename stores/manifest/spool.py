"""The text of a manifest while it is received and used."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, cast

from snapferry.stores.errors import ManifestSyntaxError, ManifestTooLarge, StoreFault
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.runtime.bounds import LONGEST_LINE, bounds
from snapferry.stores.text.format import counted

from .canonical import Canonical, canonicalise


class Spool:
    """
    The bytes of a manifest as they arrive: up to *memory_bytes* in memory, more in a temporary file.

    The length of the text and of each line is bounded, so that reading it takes bounded memory.
    """

    def __init__(self, label: str, snapshot: str, memory_bytes: int) -> None:
        self._label = label
        self._snapshot = snapshot
        self._most = bounds().manifest_bytes
        self._line = 0
        self.file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(memory_bytes))
        self.length = 0

    def write(self, chunk: bytes) -> None:
        """Append *chunk*. Raises `ManifestTooLarge`, `ManifestSyntaxError` for a line that is too long."""
        self.length += len(chunk)
        if self.length > self._most:
            raise ManifestTooLarge(
                self._label,
                self._snapshot,
                f"the manifest is longer than {counted(self._most, 'byte')}; set SNAPFERRY_MAX_MANIFEST_BYTES to allow"
                " more, which take as much room in the temporary directory",
            )
        self._check_lines(chunk)
        with self._room():
            self.file.write(chunk)

    def end(self) -> None:
        """Note that everything was written, so that readers of the file's descriptor find it."""
        with self._room():
            self.file.flush()

    def canonical(self) -> Canonical | None:
        """Return what was written in canonical form, None if it has none."""
        with self._room():
            return canonicalise(self.file)

    def _check_lines(self, chunk: bytes) -> None:
        # A line that lies within a chunk is shorter than the chunk, so only those that pass from one to the next count.
        first = chunk.find(b"\n")
        self._line += len(chunk) if first < 0 else first
        if self._line > LONGEST_LINE:
            raise ManifestSyntaxError(
                self._label,
                self._snapshot,
                f"line {self._lines() + 1} of the manifest is longer than {LONGEST_LINE:,} bytes",
            )
        if first >= 0:
            self._line = len(chunk) - chunk.rfind(b"\n") - 1

    def _lines(self) -> int:
        """Return how many whole lines were written."""
        self.file.seek(0)
        return sum(chunk.count(b"\n") for chunk in iter(partial(self.file.read, CHUNK_BYTES), b""))

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreFault(
                self._label,
                self._snapshot,
                f"the manifest cannot be kept in the temporary directory {tempfile.gettempdir()}:"
                f" {error.strerror or error}; free space there, or set TMPDIR to a larger disk",
            ) from error
