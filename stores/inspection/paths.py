"""
Files and directories of a manifest, by their paths.

A PATH in a manifest begins with ``./``, and lines are sorted by the bytes of PATH, so all that is below a directory
lies together.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from snapferry.stores.address import SnapshotId
from snapferry.stores.manifest.entry import Entry
from snapferry.stores.manifest.parse import Manifest

# Suggestions for a path that is not there, and names that are compared for them.
NEAR: Final = 3
_NAMES_COMPARED: Final = 1000
_LONGEST_NAME: Final = 255

# Directories above a path that are looked for.
_DEEPEST: Final = 100

_ROOT: Final = "./"


class PathMissing(Exception):
    """A snapshot does not list a path. *near* are similar paths that it lists."""

    def __init__(self, snapshot_id: SnapshotId, path: str, near: list[str]) -> None:
        super().__init__(snapshot_id, path, near)
        self.snapshot_id = snapshot_id
        self.path = path
        self.near = near


class IsDirectory(Exception):
    """A path names a directory where a file is needed."""


def below(manifest: Manifest, path: str) -> Iterator[Entry]:
    """
    Yield the entry at *path*, and all entries below it if it is a directory.

    *path* may leave out ``./`` at its beginning and ``/`` at its end. Raises `PathMissing` before the first entry, and
    as `Manifest.entries` does.
    """
    wanted = _normal(path)
    found = False
    for entry in _entries_at(manifest, wanted):
        found = True
        yield entry
    if not found and wanted != _ROOT:
        raise PathMissing(manifest.id, path, near(manifest, wanted))


def file_at(manifest: Manifest, path: str) -> Entry:
    """
    Return the file at *path*, which may leave out ``./`` at its beginning.

    Raises `PathMissing`, `IsDirectory`, and as `Manifest.entries` does.
    """
    directory = False
    wanted = _normal(path)
    for entry in _entries_at(manifest, wanted):
        if entry.type == "F" and entry.path == wanted:
            return entry
        directory = True
    if directory or wanted == _ROOT:
        raise IsDirectory(path)
    raise PathMissing(manifest.id, path, near(manifest, wanted))


def near(manifest: Manifest, path: str) -> list[str]:
    """
    Return up to `NEAR` paths of *manifest* that are similar to *path*.

    They are names in the last directory of *path* that exists, then files of the same name elsewhere.
    """
    wanted = _normal(path)
    name = wanted.rsplit("/", 1)[-1]
    lower = _bytes(name).lower()
    parents = _parents(wanted)
    depth, names, same = 0, dict[str, str](), list[str]()
    for fields in manifest.fields():
        parent, _, last = fields[4].removesuffix(b"/").rpartition(b"/")
        if last.lower() == lower and len(same) < NEAR:
            same.append(fields[4].decode())
        # Only a directory at least as deep as the deepest one so far can have the better names.
        at = parents.get(parent, 0)
        if at > depth:
            depth, names = at, {}
        if at == depth and at and len(names) < _NAMES_COMPARED and len(last) <= _LONGEST_NAME:
            names[last.decode()] = fields[4].decode()
    # The part of the wanted path that is in that directory.
    part = wanted.split("/")[depth] if depth else name
    similar = get_close_matches(part[:_LONGEST_NAME], names, NEAR, 0.6)
    return list(dict.fromkeys([*(names[one] for one in similar), *same]))[:NEAR]


def _parents(path: str) -> dict[bytes, int]:
    """Return the directories above *path*, each with its depth."""
    parts = _bytes(path).split(b"/")[:_DEEPEST]
    return {b"/".join(parts[:depth]): depth for depth in range(1, len(parts))}


def _bytes(path: str) -> bytes:
    # An argument that is not UTF-8 has surrogates. No manifest has their bytes, so it is not found.
    return path.encode(errors="surrogatepass")


def _normal(path: str) -> str:
    """Return *path* as manifests have the paths of files."""
    stripped = path.rstrip("/") or path[:1]
    if stripped in ("", "."):
        return _ROOT
    return stripped if stripped.startswith((_ROOT, "/")) else _ROOT + stripped


def _entries_at(manifest: Manifest, wanted: str) -> Iterator[Entry]:
    """Yield the entry at *wanted*, and those below it."""
    if wanted == _ROOT:
        yield from manifest.entries()
        return
    path = _bytes(wanted)
    folder = path.removesuffix(b"/") + b"/"
    # "0" follows "/" in ASCII: the first text after all that begin with the folder.
    end = folder[:-1] + b"0"
    for fields in manifest.fields():
        found = fields[4]
        if found >= end:
            return
        if found == path or found.startswith(folder):
            yield Entry.of(fields)
