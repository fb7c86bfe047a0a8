"""Read many short files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snapferry.stores.backends.directory.paths.beneath import read_beneath
from snapferry.stores.runtime.interruption import checkpoint

from .extension import FILES_AT_ONCE, extension


def read_many(root: int, keys: Sequence[str], size_hints: Sequence[int]) -> list[bytes | None]:
    """Return `read_beneath` of each of *keys*, for one byte more than its size hint."""
    return read_in_slices(root, keys, size_hints, _read_one, still=False)


def _read_one(root: int, key: str, size_hint: int) -> bytes | None:
    return read_beneath(root, key, size_hint + 1)


def read_in_slices(
    root: int,
    paths: Sequence[str],
    sizes: Sequence[int],
    read_one: Callable[[int, str, int], bytes | None],
    *,
    still: bool,
) -> list[bytes | None]:
    """
    Return what *read_one* returns for each of *paths* and *sizes*, some at a time between two checkpoints.

    *still*: it is `read_still` and not `read_beneath`.
    """
    found: list[bytes | None] = []
    if len(paths) != len(sizes):
        raise ValueError("each file needs a size")
    for first in range(0, len(paths), FILES_AT_ONCE):
        checkpoint()
        compiled = extension()
        some, most = paths[first : first + FILES_AT_ONCE], sizes[first : first + FILES_AT_ONCE]
        if compiled is not None and min(most) >= 0 and max(most) <= compiled.MOST_BYTES:
            found += compiled.read_many(root, some, most, still)
        else:
            found += [read_one(root, path, size) for path, size in zip(some, most, strict=True)]
    return found
