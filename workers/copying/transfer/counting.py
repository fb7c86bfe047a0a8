"""Count the bytes of an object for the progress of its batch."""

from __future__ import annotations

from snapferry.stores.runtime.interruption import mark_as_owners

from .interfaces import Progress


class ByteCounter:
    """
    Counts the bytes of one object as they arrive. They count as moved unless *moves* is False.

    *left*: planned bytes that are not counted yet, never below 0. *read*: all bytes that arrived, those of a second
    reading included.
    """

    def __init__(self, progress: Progress, size: int, *, moves: bool = True) -> None:
        self._progress = progress
        self._moves = moves
        self.left = size
        self.read = 0

    def add(self, size_bytes: int) -> None:
        """Count a piece of the object."""
        self.read += size_bytes
        counted = min(size_bytes, self.left)
        self.left -= counted
        try:
            self._progress.advance(0, counted, size_bytes if self._moves else 0)
        except Exception as error:
            # The store that calls this must not take it for an error of its own.
            mark_as_owners(error)
            raise
