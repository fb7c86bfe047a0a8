"""
The keys below a directory, in order.

Only directories that may hold keys are read; a foreign name beside the shards is skipped, whatever it is. A shard that
cannot be read, or anything but a regular file in the place of a key, ends the listing with an error that names its
path. A listing without it would report objects as absent. `list_around` is for those who repair the store.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from snapferry.stores.address import MANIFESTS, OBJECTS
from snapferry.stores.backend import Listed
from snapferry.stores.errors import StoreError, StoreFault
from snapferry.stores.runtime.interruption import checkpoint

from .errors import translated
from .paths.beneath import LIST
from .paths.root import Folder, Root

Skip = Callable[[StoreError], None]

SHARDS: Final = 3

_is_shard: Final = re.compile(r"[0-9a-f]{3}").fullmatch
_is_rest: Final = re.compile(r"[0-9a-f]{55}").fullmatch

MOST_FLAT: Final = 100_000
"""Names in a directory that is not one of shards, such as that of the names of snapshots: they are in memory."""

# Names between two checkpoints, in a directory with many foreign names.
_NAMES: Final = 1000


def list_keys(root: Root, label: str, prefix: str, start_after: str) -> Iterator[Listed]:
    """Yield as `Backend.keys` does; raise `StoreError`, whose detail names the path."""
    folder = prefix.rstrip("/")
    if prefix in (OBJECTS, MANIFESTS):
        yield from _shards(root, label, folder, start_after, SHARDS)
    else:
        yield from _files(root, label, folder, start_after, bool, strict=False)


def list_around(root: Root, label: str, prefix: str, skip: Skip) -> Iterator[Listed]:
    """As `ListsAround.keys_around`, for the keys of objects or of manifests."""
    return _shards(root, label, prefix.rstrip("/"), "", SHARDS, skip)


def _shards(
    root: Root, label: str, folder: str, start_after: str, depth: int, skip: Skip | None = None
) -> Iterator[Listed]:
    if depth == 0:
        yield from _files(root, label, folder, start_after, _is_rest, strict=True, skip=skip)
        return
    names = []
    with _skipping(skip):
        listed = _open(root, label, folder)
        if listed is None:
            return
        names = _names(root, label, folder, listed, _is_shard)
        del listed
    for name in names:
        path = f"{folder}/{name}"
        if f"{path}/" > start_after or start_after.startswith(f"{path}/"):
            yield from _shards(root, label, path, start_after, depth - 1, skip)


@contextmanager
def _skipping(skip: Skip | None) -> Iterator[None]:
    """End the block where something cannot be listed, after *skip* was called, if there is one."""
    try:
        yield
    except StoreError as error:
        if skip is None or error.transient:
            raise
        skip(error)


def _files(
    root: Root,
    label: str,
    folder: str,
    start_after: str,
    wanted: Callable[[str], object],
    *,
    strict: bool,
    skip: Skip | None = None,
) -> Iterator[Listed]:
    """
    Yield the files in *folder* whose names are *wanted*.

    With *strict*, all of these must be regular files; with *skip*, they are listed whatever they are.
    """
    listed, names = None, []
    with _skipping(skip):
        listed = _open(root, label, folder)
        if listed is not None:
            names = _names(root, label, folder, listed, wanted, most=None if strict else MOST_FLAT)
    if listed is None:
        return
    for name in names:
        path = f"{folder}/{name}"
        if path <= start_after:
            continue
        try:
            status = os.stat(name, dir_fd=listed.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            # Deleted since.
            continue
        except OSError as error:
            raise _cannot(root, label, path, error) from error
        if stat.S_ISREG(status.st_mode) or skip is not None:
            yield Listed(path, status.st_size, status.st_mtime)
        elif strict:
            raise StoreFault(label, path, root.in_the_way(path) or "changed while it was listed")


def _open(root: Root, label: str, folder: str) -> Folder | None:
    try:
        return Folder(root.open(folder, LIST))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot(root, label, folder, error) from error


def _names(
    root: Root,
    label: str,
    path: str,
    folder: Folder,
    wanted: Callable[[str], object],
    *,
    most: int | None = None,
) -> list[str]:
    """
    Return the names in *folder* that are *wanted*, sorted. Other names are not kept in memory.

    Raises `StoreFault` for more than *most* of them.
    """
    found: list[str] = []
    try:
        with os.scandir(folder.descriptor) as entries:
            for number, entry in enumerate(entries):
                if number % _NAMES == 0:
                    checkpoint()
                if wanted(entry.name):
                    found.append(entry.name)
                    if most is not None and len(found) > most:
                        raise StoreFault(label, path, f"holds more than {most:,} files")
    except OSError as error:
        raise _cannot(root, label, path, error) from error
    return sorted(found)


def _cannot(root: Root, label: str, path: str, error: OSError) -> Exception:
    return translated(error, label, path, root, folder=True)
