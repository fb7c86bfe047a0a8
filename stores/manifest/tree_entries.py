"""
The entries of a manifest that a directory tree can be made of.

A manifest may come from anybody. Each path here is relative, stays below the root of the tree, and has no second
meaning: no path is listed twice, and nothing is listed below a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from snapferry.stores.address import Address
from snapferry.stores.errors import ManifestSyntaxError

from .parse import Manifest

LONGEST_NAME: Final = 255
"""Bytes of the longest name that file systems of Linux take."""

LONGEST_PATH: Final = 4095
"""Bytes of the longest path that a system call of Linux takes."""

_is_mode = re.compile(r"[0-7]{1,4}").fullmatch

# A part that is no name, in paths of files each after a line end.
_has_no_name = re.compile(r"/\.{0,2}(?:[/\n]|\Z)").search


class TreeEntry(NamedTuple):
    """
    A file, or with *is_folder* a directory.

    *path* is relative, without ``./`` and without a slash at its end; "" is the root. *mode* has the permissions with
    the bits for setuid, setgid and sticky. *size* is in bytes and advisory.
    """

    is_folder: bool
    mode: int
    address: Address
    size: int
    path: str


class _Refused(Exception):
    """A line that cannot be used; the text says why."""


def tree_entries(manifest: Manifest) -> Iterator[TreeEntry]:
    """
    Yield the entries of *manifest* in its order, checked: all that is below a directory is consecutive.

    Raises `ManifestSyntaxError` with the number of the line, and what `Manifest.entries` raises. Iterate to the end
    before anything is written.
    """
    # The paths of files that are the beginning of the current path. Because paths are sorted, no other file can
    # be above the current one.
    files: list[str] = []
    last, number, path = "", 0, ""
    try:
        for columns, permissions in manifest.lines():
            are_plain = _are_plain(columns.files().paths)
            modes = {mode: int(mode, 8) if _is_mode(mode) else None for mode in set(permissions)}
            kinds, checksums, sizes, paths = columns
            rows = zip(kinds, permissions, checksums, sizes, paths, strict=True)
            for number, (kind, permission, checksum, size, path) in enumerate(rows, number + 1):  # noqa: B007, B020 - the error has it
                is_folder = kind == "D"
                if is_folder or not are_plain:
                    _check_path(path, is_folder=is_folder)
                if path == last:
                    raise _Refused("is listed twice")
                while files and not path.startswith(files[-1]):
                    files.pop()
                for above in files:
                    if path[len(above)] == "/":
                        raise _Refused(f"is below {above!r}, which is a file")
                mode = modes[permission]
                if mode is None:
                    raise _Refused(
                        f"has the permissions {permission!r}, which are not octal digits up to 7777"
                    )
                last = path
                if is_folder:
                    yield TreeEntry(True, mode, checksum, int(size), path[2:-1])
                else:
                    files.append(path)
                    yield TreeEntry(False, mode, checksum, int(size), path[2:])
    except _Refused as refused:
        raise ManifestSyntaxError(
            manifest.label,
            manifest.id,
            f"no tree can be made of line {number} of the manifest: {_shown(path)} {refused}",
        ) from None


def _are_plain(paths: Sequence[str]) -> bool:
    """Return whether `_check_path` need not look at any of *paths*, those of files: nearly always."""
    text = "\n".join(("", *paths))
    return (
        text.isascii()
        and "\0" not in text
        and text.count("\n./") == len(paths)
        and max(map(len, paths), default=0) <= LONGEST_NAME
        and not _has_no_name(text)
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


def first_fold(entries: Iterable[TreeEntry], fold: Callable[[str], str]) -> tuple[str, str] | None:
    """
    Return the first two paths that are one where names are compared after *fold*, None if there are none.

    Memory grows with the number of names in a directory.
    """
    # For each directory on the way to the current entry: its name, and the folded names in it.
    parts: list[str] = []
    names: list[dict[str, str]] = [{}]
    for entry in entries:
        if not entry.path:
            continue
        found = entry.path.split("/")
        depth = 0
        while depth < min(len(parts), len(found)) and parts[depth] == found[depth]:
            depth += 1
        del parts[depth:], names[depth + 1 :]
        for name in found[depth:]:
            other = names[-1].setdefault(fold(name), name)
            if other != name:
                above = "/".join([".", *parts])
                return f"{above}/{other}", f"{above}/{name}"
            parts.append(name)
            names.append({})
    return None
