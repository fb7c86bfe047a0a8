"""
A directory tree that becomes what a snapshot lists.

*beneath*: everything is opened below the root, without following links, whatever a manifest or a link in the tree says.
*atomic per file*: a path holds its previous bytes or all of the new ones, with their permissions, after any crash.
*shared names stay*: a file that has other names (hard links) is replaced, not changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from blake3 import blake3

from snapferry.stores.backends.directory.native.slices import show_all, upload_all
from snapferry.stores.backends.directory.paths.beneath import LIST, LOOK, READ, status_beneath
from snapferry.stores.backends.directory.paths.mounts import on_network
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.backends.directory.sync import sync_file_system
from snapferry.stores.errors import AccessDenied, StoreFault, StoreNotFound
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.manifest.tree_entries import TreeEntry, first_fold
from snapferry.stores.manifest.tree_lines import LONGEST_PATH, TreeColumns
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import Settled
from snapferry.stores.streams import Upload

from .folders import TreeFolders
from .folding import folding_of
from .many import show_many, write_many
from .modes import set_mode, unlock
from .settling import settle
from .surplus import Surplus, find_surplus
from .upload import TreeUpload

# Uploads that are committed by themselves; more share one sync of their file systems.
_FEW: Final = 2


class TreeTarget:
    """
    The tree at *path*, an absolute path. Safe to share between threads. Methods raise `StoreError`.

    Without *links*, no link on the way to it is followed. *delete*: remove what the snapshot does not have, and what is
    in the place of its files and directories. *linked*: files share their blocks with the store, or fail. *look_only*:
    nothing is changed, not even permissions, and the root may be missing; what cannot be looked at is not right.
    """

    def __init__(
        self,
        path: str,
        *,
        links: bool = True,
        delete: bool = False,
        linked: bool = False,
        look_only: bool = False,
    ) -> None:
        self.folders = TreeFolders(path, links=links, delete=delete, look_only=look_only)
        self.label = self.folders.label
        self.linked = linked
        self._look_only = look_only

    @property
    def may_wait(self) -> bool:
        """Whether the tree is on a network file system."""
        return on_network(self.folders.path)

    def prepare(self, entries: Iterable[TreeEntry]) -> None:
        """
        Make the root where it is missing, and make sure that no two of *entries* are one file there.

        Raises `StoreFault` for the first two that are.
        """
        self.folders.make_root()
        fold = self._fold()
        pair = first_fold(entries, fold) if fold is not None else None
        if pair is not None:
            raise StoreFault(
                self.label,
                pair[0],
                f"and {pair[1]!r} are one name on this file system; nothing was written. Choose another file system",
            )

    def is_right(self, file: TreeEntry) -> bool:
        """
        Return whether *file* is there with its bytes, which are read. Then set its permissions where they differ.

        Its age and its length prove nothing.
        """
        try:
            return self._is_right(file)
        except (AccessDenied, StoreNotFound):
            if not self._look_only:
                raise
            return False

    def are_right(self, files: Iterable[TreeEntry]) -> Iterator[bool]:
        """Yield `is_right` of each of *files*. Neighbours in a directory that is missing cost one question."""
        absent: str | None = None
        for file in files:
            above = file.path.rpartition("/")[0]
            is_right = above != absent and self.is_right(file)
            if not is_right and above != absent and self.folders.kept(above) is None:
                # Nothing is there, or what is there is no directory.
                absent = above
            yield is_right

    def _is_right(self, file: TreeEntry) -> bool:
        above, _, name = file.path.rpartition("/")
        folder = self.folders.find(above)
        if folder is None:
            return False
        try:
            found = self._status(folder, name)
            if found is None:
                return False
            # The size of a link is that of its text, and tells nothing of its target's.
            of_a_link = file.size <= LONGEST_PATH
            if not stat.S_ISREG(found.st_mode) or not (of_a_link or found.st_size == file.size):
                return False
            descriptor = self._opened(folder, name, found)
            if descriptor is None:
                return False
            try:
                return _hashes_to(descriptor, file) and self._has_mode(descriptor, file.mode)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.folders.fail(error, file.path)

    def upload(self, file: TreeEntry) -> Upload:
        """Begin to write *file*. The directories above it are made."""
        return TreeUpload(self.folders, file, linked=self.linked)

    def upload_many(self, files: Sequence[TreeEntry], data: Sequence[bytes]) -> list[Upload]:
        """As `FileTarget.upload_many`."""
        return upload_all(
            files,
            data,
            lambda some, of: [] if self.linked else write_many(self.folders, some, of),
            lambda file, each: self.upload(file).filled(each),
        )

    def duplicate(self, upload: Upload, file: TreeEntry) -> Upload:
        """Write *file* with the bytes of *upload*, another file of this tree that is complete and not committed."""
        if not isinstance(upload, TreeUpload):
            raise TypeError("an upload of another tree")
        copy = TreeUpload(self.folders, file, linked=False)
        try:
            copy.fill(upload)
            copy.finish()
        except BaseException:
            copy.abort()
            raise
        return copy

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        """
        Commit *uploads* of this tree, to which everything was written, with one sync for all of them.

        After an error each is in the state that an error of its own `Upload.commit` leaves.
        """
        files = [upload for upload in uploads if isinstance(upload, TreeUpload)]
        for upload in files:
            if len(files) <= _FEW:
                upload.sync()
            upload.finish()
        if not all(upload.synced for upload in files):
            self._sync(files)
        show_all(files, show_many)

    def settle(self, lines: Callable[[], Iterable[TreeColumns]], most: int) -> Settled:
        """As `FileTarget.settle`: none is removed unless the tree deletes. May be repeated."""
        return settle(self.folders, lines, self._fold(), most)

    def surplus(self, entries: Iterable[TreeEntry]) -> Surplus:
        """Return what the tree has that is not among *entries*: what a tree that deletes removes. Changes nothing."""
        return find_surplus(self.folders, entries)

    def flush(self) -> None:
        """Return when the names of all files that were committed survive a power cut."""
        try:
            listed = Folder(os.open(".", LIST, dir_fd=self.folders.root().descriptor))
            sync_file_system(listed.descriptor)
        except OSError as error:
            self.folders.fail(error, "")

    def free_bytes(self) -> int | None:
        """Return how many bytes may still be written, None if that is unknown."""
        with suppress(OSError):
            found = os.fstatvfs(self.folders.root().descriptor)
            return found.f_bavail * found.f_frsize
        return None

    def _fold(self) -> Callable[[str], str] | None:
        root = self.folders.root().descriptor
        try:
            try:
                return folding_of(root)
            except PermissionError:
                if not unlock(root):
                    raise
            return folding_of(root)
        except OSError as error:
            self.folders.fail(error, "")

    def _sync(self, uploads: Sequence[TreeUpload]) -> None:
        """Sync each file system that *uploads* were written to."""
        synced: set[int] = set()
        for above in {upload.above for upload in uploads if not upload.synced}:
            folder = self.folders.folder(above)
            try:
                device = os.fstat(folder.descriptor).st_dev
                if device not in synced:
                    synced.add(device)
                    opened = Folder(os.open(".", LIST, dir_fd=folder.descriptor))
                    sync_file_system(opened.descriptor)
            except OSError as error:
                self.folders.fail(error, above)

    def _status(self, folder: Folder, name: str) -> os.stat_result | None:
        """Return the status of *name*, None where there is nothing."""
        try:
            return status_beneath(folder.descriptor, name)
        except PermissionError:
            # The directory itself may be open whatever its permissions are.
            if self._look_only or not unlock(folder.descriptor):
                raise
        return status_beneath(folder.descriptor, name)

    def _opened(self, folder: Folder, name: str, found: os.stat_result) -> int | None:
        """Open the file *name* with the status *found*, to read it. None where this process has no right to."""
        try:
            return os.open(name, READ, dir_fd=folder.descriptor)
        except PermissionError:
            if self._look_only or found.st_uid != os.geteuid() or found.st_nlink != 1:
                return None
        looked = os.open(name, LOOK, dir_fd=folder.descriptor)
        try:
            if not stat.S_ISREG(os.fstat(looked).st_mode) or not unlock(looked):
                return None
        finally:
            os.close(looked)
        return os.open(name, READ, dir_fd=folder.descriptor)

    def _has_mode(self, descriptor: int, mode: int) -> bool:
        """Give the open file the permissions *mode*; return whether it has them."""
        found = os.fstat(descriptor)
        if stat.S_IMODE(found.st_mode) == mode or self._look_only:
            return True
        if found.st_nlink != 1:
            return False
        try:
            set_mode(descriptor, mode)
        except PermissionError:
            return False
        return True


def _hashes_to(descriptor: int, file: TreeEntry) -> bool:
    hasher = blake3()
    while chunk := os.read(descriptor, CHUNK_BYTES):
        checkpoint()
        hasher.update(chunk)
    return bool(hasher.hexdigest() == file.address)
