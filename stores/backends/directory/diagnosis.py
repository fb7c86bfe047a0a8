"""
Findings about a directory before a copy: its file system, free space, permissions, and whether it can clone.

Probes are written where objects are, in the root while there are none. Each has a folder of its own, because several
machines may check at once. Files of a running job are not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from snapferry.stores.address import MANIFESTS, OBJECTS
from snapferry.stores.backend import Backend
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.diagnosis.round_trip import is_stale, new_probe, refused, round_trip
from snapferry.stores.errors import StoreError
from snapferry.stores.text.format import size

from .clone import clone
from .paths.beneath import FOLDER, LIST, open_beneath
from .paths.mounts import mount_of
from .paths.root import Folder, Root
from .store_directory import StoreDirectory

# Below one of these the next job is likely to run out of space.
FEW_BYTES: Final = 1024**3
FEW_SHARE: Final = 0.05
FEW_INODES: Final = 10_000

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# The prefix of a probe's folder.
PROBES: Final = ".snapferry-probe-"


def probe_directory(
    directory: StoreDirectory, backend_on: Callable[[StoreDirectory], Backend], *, for_writing: bool
) -> Iterator[Finding]:
    """
    Yield findings about *directory*, as `Diagnosable.probe`. *backend_on* returns the backend of a directory.

    For a directory that does not exist yet, checks the existing directory in which it would be created.
    """
    root = directory.path
    existing = _existing(root)
    if existing != root:
        yield Finding(
            Level.NOTE,
            "store.exists",
            f"{root} does not exist yet; the first job creates it in {existing}",
            "make sure that no mount is missing",
            value=str(root),
        )
    elif for_writing:
        yield Finding(Level.OK, "store.exists", f"{root} exists")
    try:
        yield from _file_system(existing, for_writing=for_writing)
    except OSError as error:
        yield Finding(
            Level.NOTE, "file.system", f"the file system of {existing} cannot be examined: {error.strerror}"
        )
    if for_writing:
        # Probing a directory that does not exist would create it.
        there = directory if existing == root else directory.at(existing)
        yield from _writing(there, backend_on(there))
    elif existing == root:
        with suppress(StoreError):
            opened = directory.root()
            if any(
                _same(opened.descriptor, space[:-1], space[:-1].upper()) for space in (OBJECTS, MANIFESTS)
            ):
                yield _case_finding()


def probe_clone(directory: StoreDirectory, source: StoreDirectory, key: str) -> Iterator[Finding]:
    """
    Try whether the file under *key* of *source* can be cloned to *directory*; leave no clone.

    Yields nothing where *directory* does not exist yet.
    """
    if _existing(directory.path) != directory.path:
        return
    try:
        opened = directory.root()
        with _probe_folder(opened, _spaces(opened)[0]) as (_, folder), ExitStack() as stack:
            file, _ = source.open_file(key)
            stack.callback(os.close, file)
            copy = os.open(new_probe(""), _CREATE, opened.rules.file_mode, dir_fd=folder.descriptor)
            stack.callback(os.close, copy)
            cloned = clone(file, copy)
            one = os.fstat(file).st_dev == os.fstat(copy).st_dev
    except (OSError, StoreError) as error:
        why = error.detail if isinstance(error, StoreError) else error.strerror
        yield Finding(Level.NOTE, "pair.clones", f"cannot try whether objects can be cloned: {why}")
        return
    if cloned:
        yield Finding(
            Level.OK,
            "pair.clones",
            "large objects are cloned: both stores share a file system that can clone",
        )
    elif one:
        said = "both stores are in one file system, which cannot clone: bytes are copied"
        yield Finding(Level.NOTE, "pair.clones", said)
    else:
        yield Finding(Level.OK, "pair.clones", "the stores are in different file systems: bytes are copied")


def free_bytes(root: str) -> int:
    """Return how many bytes this user may still write in *root*, or where it would be made. Raises OSError."""
    found = os.statvfs(_existing(root))
    return found.f_bavail * found.f_frsize


def _existing(root: str) -> str:
    while not os.path.lexists(root):
        root = os.path.dirname(root)
    return root


def _spaces(root: Root) -> list[str]:
    """Return where keys go: below the folders of objects and manifests, below the root while there are none."""
    return [space for space in (OBJECTS, MANIFESTS) if root.status(space[:-1]) is not None] or [""]


@contextmanager
def _probe_folder(root: Root, space: str) -> Iterator[tuple[str, Folder]]:
    """Make a folder for one probe, and remove it with its content."""
    above = root.folder(space[:-1] or ".")
    name = new_probe(PROBES)
    try:
        os.mkdir(name, root.rules.folder_mode, dir_fd=above.descriptor)
        yield f"{space}{name}/", Folder(open_beneath(above.descriptor, name, FOLDER))
    finally:
        _remove(above, name)


def _remove(above: Folder, name: str) -> None:
    """Remove the folder *name* in *above*, with its files."""
    with suppress(OSError):
        folder = Folder(open_beneath(above.descriptor, name, LIST))
        for file in os.listdir(folder.descriptor):
            os.unlink(file, dir_fd=folder.descriptor)
        os.rmdir(name, dir_fd=above.descriptor)


def _sweep(root: Root) -> None:
    """Remove folders that killed processes left."""
    for space in ("", OBJECTS, MANIFESTS):
        with suppress(OSError):
            above = Folder(root.open(space[:-1] or ".", LIST))
            for name in os.listdir(above.descriptor):
                if name.startswith(PROBES):
                    status = os.stat(name, dir_fd=above.descriptor, follow_symlinks=False)
                    if is_stale(name, status.st_mtime):
                        _remove(above, name)


def _writing(directory: StoreDirectory, backend: Backend) -> Iterator[Finding]:
    root = directory.root()
    _sweep(root)
    distinguished = None
    for space in _spaces(root):
        what = space.strip("./") or f"what is in {directory.path}"
        try:
            with _probe_folder(root, space) as (folder, _):
                yield from round_trip(backend, folder, what)
                above, name = root.folder(space[:-1] or "."), folder[len(space) : -1]
                distinguished = not _same(above.descriptor, name, name.upper())
        except OSError as error:
            yield refused("store.write", f"{what} cannot be written", directory.error(error, space))
    if distinguished is False:
        yield _case_finding()
    elif distinguished:
        yield Finding(Level.OK, "file.case", "the file system distinguishes upper and lower case")


def _case_finding() -> Finding:
    return Finding(
        Level.ERROR,
        "file.case",
        "the file system does not distinguish upper and lower case",
        "use a file system that does: other programs that read this store may depend on it",
    )


def _same(directory: int, one: str, other: str) -> bool:
    """Return whether two names in an open directory are the same file."""
    try:
        return os.path.samestat(*(os.lstat(name, dir_fd=directory) for name in (one, other)))
    except OSError:
        return False


def _file_system(existing: str, *, for_writing: bool) -> Iterator[Finding]:
    found = os.statvfs(existing)
    mount = mount_of(existing)
    total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    name = f"{mount.kind} at {mount.place}" if mount else "a file system that the system does not name"
    said = f"{name}, {size(free)} of {size(total)} free"
    if for_writing and found.f_flag & os.ST_RDONLY:
        yield Finding(
            Level.ERROR, "file.system", f"{said}, mounted read-only", "mount it for writing (remount,rw)"
        )
        return
    if mount and mount.is_network:
        advice = "mount it on all machines of a fleet, at the same path, with the option hard"
        yield Finding(Level.NOTE, "file.system", f"{said}: a network file system", advice)
    else:
        yield Finding(Level.OK, "file.system", said)
    if not for_writing:
        return
    if total and free < min(FEW_BYTES, total * FEW_SHARE):
        level = Level.WARNING if free else Level.ERROR
        yield Finding(
            level, "file.space", f"only {size(free)} is free", "free some space; see also --max-bytes"
        )
    elif total:
        yield Finding(Level.OK, "file.space", f"{free / total:.0%} of the space is free")
    # Btrfs, ZFS and others create inodes when they are needed, and report none.
    if found.f_files:
        if found.f_favail < FEW_INODES and found.f_favail < found.f_files * FEW_SHARE:
            level = Level.WARNING if found.f_favail else Level.ERROR
            said = f"only {found.f_favail:,} of {found.f_files:,} inodes are free"
            advice = "an object takes a file and up to three directories: use a file system with more inodes"
            yield Finding(level, "file.inodes", said, advice)
        else:
            yield Finding(Level.OK, "file.inodes", f"{found.f_favail:,} of {found.f_files:,} inodes are free")
