"""
Quarantine in a directory: the wrong file gets a second name, or another name where it can have no second one.

*what was read is what is kept*: the second name (a hard link) is made of the open file whose bytes were found wrong. So
a right file that takes its place meanwhile never gets into quarantine.
*never without a file*: the new file replaces a linked one by one rename. A directory is renamed, by a call that renames
nothing else, and so is a file that cannot be linked. Then nothing is under the key for a moment.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

from snapferry.stores.address import Key, quarantine_key
from snapferry.stores.errors import KeyChanged, Unreadable
from snapferry.stores.features import IsRight, Seen

from .paths.beneath import LOOK, READ
from .paths.root import Root
from .paths.versions import NOTHING, changed, locked, version_at, version_of
from .store_directory import StoreDirectory
from .streams import FileReader

# The beginning of a name in the directory of the key itself. Used where the shard is on another disk.
BESIDE: Final = ".quarantine-"

READINGS: Final = 2

# Wrong versions of a key that have the same time and inode number, one after the other.
_ALIKE: Final = 100


class _File(NamedTuple):
    """
    What is under *key*: *name* in the open directory *above*, with its status when it was looked at.

    *descriptor* is of its inode, -1 where there can be none.
    """

    directory: StoreDirectory
    key: str
    above: int
    name: str
    status: os.stat_result
    descriptor: int

    @property
    def version(self) -> str:
        return version_of(self.status)

    def check_there(self) -> None:
        """Raise `KeyChanged` unless the name still is of this file, and the file as it was."""
        if version_at(self.above, self.name) != self.version:
            raise self.changed()

    def changed(self) -> KeyChanged:
        return changed(self.directory.label, self.key)


def quarantine(directory: StoreDirectory, key: str, is_right: IsRight) -> Seen:
    """As `Quarantining.quarantine`. Raises `StoreError`."""
    root = directory.root()
    folder, _, name = key.rpartition("/")
    with directory.errors(key):
        try:
            above = root.folder(folder)
            status = os.stat(name, dir_fd=above.descriptor, follow_symlinks=False)
            # Elsewhere than on Linux, a link or a FIFO cannot be opened without following it or waiting.
            descriptor = os.open(name, LOOK, dir_fd=above.descriptor) if hasattr(os, "O_PATH") else -1
        except FileNotFoundError:
            return Seen(Key(""), NOTHING)
    try:
        if descriptor >= 0:
            status = os.fstat(descriptor)
        file = _File(directory, key, above.descriptor, name, status, descriptor)
        if stat.S_ISREG(status.st_mode):
            if _reads_right(file, is_right):
                return Seen(right=True)
            if not status.st_size:
                return Seen(Key(""), file.version)
        return _keep(root, file)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _reads_right(file: _File, is_right: IsRight) -> bool:
    """Return whether the bytes of *file* are right in one of two readings. Raises `KeyChanged`."""
    directory, key = file.directory, file.key
    try:
        descriptor = os.open(file.name, READ, dir_fd=file.above)
    except FileNotFoundError:
        raise file.changed() from None
    except OSError as error:
        failure = directory.read_error(error, key)
        if isinstance(failure, Unreadable):
            return False
        raise failure from error
    try:
        for _ in range(READINGS):
            if version_of(os.fstat(descriptor)) != file.version:
                raise file.changed()
            os.lseek(descriptor, 0, os.SEEK_SET)
            try:
                if is_right(FileReader(directory, key, descriptor, file.status.st_size)):
                    return True
            except Unreadable:
                continue
        return False
    finally:
        os.close(descriptor)


def _keep(root: Root, file: _File) -> Seen:
    folder = file.key.rpartition("/")[0]
    mark = f"{int(file.status.st_mtime)}-{file.status.st_ino:x}"
    place = quarantine_key(file.key, mark)
    with file.directory.errors(place), locked(file.above):
        file.check_there()
        above, _, name = place.rpartition("/")
        shard, _ = root.make(above)
        try:
            kept = Key(f"{above}/{_link_or_rename(file, shard, name)}")
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            kept = Key(f"{folder}/{_link_or_rename(file, file.above, f'{BESIDE}{file.name}.{mark}')}")
        finally:
            os.close(shard)
        version = version_at(file.above, file.name)
        root.flush()
    if version not in (NOTHING, file.version):
        raise file.changed()
    return Seen(kept, version)


def _link_or_rename(file: _File, to: int, new_name: str) -> str:
    """Give *file* a name in the open directory *to* and return that: *new_name*, or one like it if that is taken."""
    for number in range(_ALIKE):
        name = f"{new_name}-{number}" if number else new_name
        try:
            kept = os.stat(name, dir_fd=to, follow_symlinks=False)
        except FileNotFoundError:
            _move(file, to, name)
            return name
        if (kept.st_dev, kept.st_ino) == (file.status.st_dev, file.status.st_ino):
            # The same file has the same name in quarantine, so a repeated call keeps it once.
            return name
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)


def _move(file: _File, to: int, name: str) -> None:
    if stat.S_ISDIR(file.status.st_mode):
        # With the slash, this is an error for all but a directory.
        os.rename(f"{file.name}/", name, src_dir_fd=file.above, dst_dir_fd=to)
        return
    try:
        # By the descriptor where possible: the name may be of another file by now.
        path, follow = (
            (f"/proc/self/fd/{file.descriptor}", True) if file.descriptor >= 0 else (file.name, False)
        )
        os.link(path, name, src_dir_fd=file.above, dst_dir_fd=to, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise
        # No links here, none to files of other users, or no /proc. Other repairs wait meanwhile (`locked`).
        file.check_there()
        os.rename(file.name, name, src_dir_fd=file.above, dst_dir_fd=to)
