"""The compiled extension, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final, Protocol, cast

from snapferry.stores.backends.directory.paths.beneath import has_openat2

FILES_AT_ONCE: Final = 32
"""Files that are read or written between two checkpoints."""

MOST_NAMES: Final = 4096
"""The most items of a call of `lengths` or `check_many`."""


class Extension(Protocol):
    """
    What `_files.c` offers. Paths are relative and below an open directory; descriptors are int.

    Sequences have at most `MOST_FILES` items, but for `lengths` and `check_many`: `MOST_NAMES`. All functions release
    the interpreter lock.
    """

    READ: int
    LOOK: int
    FOLDER: int
    CREATE: int
    ABSENT: int
    NO_FILE: int
    ASK: int
    AS_LISTED: int
    OTHERWISE: int
    UNKNOWN: int
    MOST_FILES: int
    MOST_BYTES: int

    def read_many(
        self, directory: int, paths: Sequence[str], sizes: Sequence[int], still: bool, /
    ) -> list[bytes | None]:
        """Return `read_beneath` of each path for one byte more than its size; with *still*, `read_still`."""

    def lengths(self, root: int, keys: Sequence[str], /) -> bytes:
        """Return as an array of 64-bit integers what `sizes.lengths` does, and `ASK` where Python must ask."""

    def check_many(self, folder: int, names: Sequence[str], modes: Sequence[int], /) -> bytes:
        """
        Return a byte for each name in the open directory *folder*.

        `AS_LISTED` for a regular file with that mode, `OTHERWISE` for anything else and for nothing, `UNKNOWN` where
        Python must ask.
        """

    def create_many(
        self,
        above: Sequence[int],
        folders: Sequence[str],
        folder_mode: int,
        names: Sequence[str],
        data: Sequence[bytes],
        file_mode: int,
        /,
    ) -> list[int]:
        """
        Make the folders, each below its directory of *above* and in its file system, and write a new file into each.

        Returns a descriptor of each folder, or its complement if the folder was there. Fewer, if one is not plain.
        """

    def write_many(
        self, folders: Sequence[int], names: Sequence[str], data: Sequence[bytes], modes: Sequence[int], /
    ) -> int:
        """Write new files and give them their permissions. Return how many: fewer if one is not plain."""

    def rename_many(
        self, folders: Sequence[int], names: Sequence[str], new_names: Sequence[str], close: bool, /
    ) -> int:
        """Rename files, each inside its folder, which *close* closes. Return how many: fewer if one fails."""


_extension: Extension | None = None
with suppress(ImportError):
    # By its name, because import-linter takes a module without a Python file for the whole package.
    _found = import_module("._files", __package__)
    # One that was compiled from older sources is not used.
    if hasattr(_found, "check_many"):
        _extension = cast(Extension, _found)


def extension() -> Extension | None:
    """Return the extension. None where it was not compiled, or where openat2(2) is missing or refused."""
    return _extension if has_openat2() else None
