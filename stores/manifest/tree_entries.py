"""The entries of a manifest that a directory tree can be made of, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from snapferry.stores.address import Address

from .parse import Manifest
from .tree_lines import tree_columns


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


def tree_entries(manifest: Manifest) -> Iterator[TreeEntry]:
    """
    Yield the entries of *manifest* in its order, checked: all that is below a directory is consecutive.

    Raises as `tree_columns` does. Iterate to the end before anything is written.
    """
    for columns in tree_columns(manifest):
        for kind, mode, checksum, size, path in zip(*columns, strict=True):
            if kind == "D":
                yield TreeEntry(True, mode, checksum, size, path[2:-1])
            else:
                yield TreeEntry(False, mode, checksum, size, path[2:])


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
