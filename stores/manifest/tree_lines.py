"""
The lines of a manifest that a directory tree can be made of, many at a time.

A manifest may come from anybody. Each path here is relative, stays below the root of the tree, and has no second
meaning: no path is listed twice, and nothing is listed below a file. Nearly all lines are plain, and columns of these
are checked as a whole. Only where a column is not plain, or a line is wrong, are its lines checked one by one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import compress, islice
from operator import lt, not_
from typing import Final, NamedTuple, TypeVar

from snapferry.stores.address import Address
from snapferry.stores.errors import ManifestSyntaxError

from .parse import Manifest

_T = TypeVar("_T")

LONGEST_NAME: Final = 255
"""Bytes of the longest name that file systems of Linux take."""

LONGEST_PATH: Final = 4095
"""Bytes of the longest path that a system call of Linux takes."""

_is_mode = re.compile(r"[0-7]{1,4}").fullmatch

# Parts that are no names, in paths of files each before a line end.
_NO_NAMES: Final = ("//", "/./", "/../", "/\n", "/.\n", "/..\n")


class TreeColumns(NamedTuple):
    """
    Some lines, one sequence a column. *kinds* are F or D, *sizes* advisory.

    *paths* begin with ``./``; those of directories end with a slash.
    """

    kinds: Sequence[str]
    modes: Sequence[int]
    checksums: Sequence[Address]
    sizes: Sequence[int]
    paths: Sequence[str]

    def files(self) -> TreeColumns:
        """Return the lines of files."""
        if self.kinds.count("F") == len(self.kinds):
            return self
        # Directories are few, and each is followed by its files.
        folders = [at for at, kind in enumerate(self.kinds) if kind != "F"]
        return TreeColumns(*(_without(column, folders) for column in self))  # type: ignore[arg-type]


def _without(column: Sequence[_T], positions: Sequence[int]) -> list[_T]:
    """Return *column* without what is at *positions*, which are in order."""
    found: list[_T] = []
    first = 0
    for at in positions:
        found += column[first:at]
        first = at + 1
    found += column[first:]
    return found


class _Refused(Exception):
    """A line that cannot be used; the text says why."""


def tree_columns(manifest: Manifest) -> Iterator[TreeColumns]:
    """
    Yield the lines of *manifest* in its order, checked: all that is below a directory is consecutive.

    Raises `ManifestSyntaxError` with the number of the line, and what `Manifest.entries` raises, though not always
    after all that comes before the fault. Iterate to the end before anything is written.
    """
    seen = _Seen()
    for kinds, permissions, checksums, digits, paths in manifest.lines():
        if not paths:
            continue
        modes = {mode: int(mode, 8) for mode in set(permissions) if _is_mode(mode)}
        try:
            if not seen.are_plain(kinds, permissions, paths, modes):
                seen.check(kinds, permissions, paths, modes)
        except _Refused as refused:
            raise ManifestSyntaxError(
                manifest.label, manifest.id, f"no tree can be made of {refused}"
            ) from None
        seen.add(kinds, paths)
        yield TreeColumns(
            kinds, list(map(modes.__getitem__, permissions)), checksums, list(map(int, digits)), paths
        )


class _Seen:
    """
    What the check of the next lines needs of those before.

    *files* are the paths of files that are the beginning of the last path. Because paths are sorted, no other file can
    be above a later one.
    """

    def __init__(self) -> None:
        self.number = 0
        self.last = ""
        self.files: list[str] = []

    def are_plain(
        self, kinds: Sequence[str], permissions: Sequence[str], paths: Sequence[str], modes: dict[str, int]
    ) -> bool:
        """Return whether the lines are right, as nearly all are. If not, `check` decides."""
        are_files = [kind == "F" for kind in kinds]
        of_files = list(compress(paths, are_files))
        if not (
            modes.keys() >= set(permissions)
            and self.last < paths[0]
            and all(map(lt, paths, islice(paths, 1, None)))
            and _are_plain(of_files)
        ):
            return False
        try:
            for path in compress(paths, map(not_, are_files)):
                _check_path(path, is_folder=True)
        except _Refused:
            return False
        # Between a path and a later one that begins with it, all paths begin with it: so the one after a file tells.
        after_files = compress(islice(paths, 1, None), are_files)
        if any(map(str.startswith, after_files, of_files)) or any(map(paths[0].startswith, self.files)):
            return self._are_not_below_files(of_files, paths)
        return True

    def _are_not_below_files(self, of_files: Sequence[str], paths: Sequence[str]) -> bool:
        above = {path[: path.rindex("/")] for path in paths}
        for path in list(above):
            while (path := path.rpartition("/")[0]) and path not in above:
                above.add(path)
        return above.isdisjoint(of_files) and above.isdisjoint(self.files)

    def check(
        self, kinds: Sequence[str], permissions: Sequence[str], paths: Sequence[str], modes: dict[str, int]
    ) -> None:
        """Raise `_Refused` for the first line that is wrong, with its number and path."""
        files, last = list(self.files), self.last
        rows = zip(kinds, permissions, paths, strict=True)
        for number, (kind, permission, path) in enumerate(rows, self.number + 1):
            try:
                _check_path(path, is_folder=kind == "D")
                if path == last:
                    raise _Refused("is listed twice")
                while files and not path.startswith(files[-1]):
                    files.pop()
                for above in files:
                    if path[len(above)] == "/":
                        raise _Refused(f"is below {above!r}, which is a file")
                if permission not in modes:
                    raise _Refused(
                        f"has the permissions {permission!r}, which are not octal digits up to 7777"
                    )
            except _Refused as refused:
                raise _Refused(f"line {number} of the manifest: {_shown(path)} {refused}") from None
            last = path
            if kind != "D":
                files.append(path)

    def add(self, kinds: Sequence[str], paths: Sequence[str]) -> None:
        """Note lines that were checked."""
        last = paths[-1]
        self.files = [path for path in self.files if last.startswith(path)]
        for end in range(1, len(last) + 1):
            at = bisect_left(paths, last[:end])
            if paths[at] == last[:end] and kinds[at] == "F":
                self.files.append(paths[at])
        self.number += len(paths)
        self.last = last


def _are_plain(paths: Sequence[str]) -> bool:
    """Return whether `_check_path` need not look at any of *paths*, those of files: nearly always."""
    text = "\n".join(("", *paths, ""))
    return (
        text.isascii()
        and "\0" not in text
        and text.count("\n./") == len(paths)
        and max(map(len, paths), default=0) <= LONGEST_NAME
        and not any(map(text.__contains__, _NO_NAMES))
    )


def _check_path(path: str, *, is_folder: bool) -> None:
    if not path.startswith("./"):
        raise _Refused("does not begin with './'")
    if "\0" in path:
        raise _Refused("has a NUL character in it")
    if is_folder and not path.endswith("/"):
        raise _Refused("is a directory, and does not end with '/'")
    if len(path.encode()) > LONGEST_PATH:
        raise _Refused(f"has more than {LONGEST_PATH:,} bytes")
    if path == "./" and is_folder:
        return
    for part in path[2:].removesuffix("/" if is_folder else "").split("/"):
        if part in ("", ".", ".."):
            raise _Refused("leads out of the tree, or has a part that is no name")
        if len(part) * 4 > LONGEST_NAME and len(part.encode()) > LONGEST_NAME:
            raise _Refused(f"has a name of more than {LONGEST_NAME} bytes")


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else f"{path[:200]}...")
