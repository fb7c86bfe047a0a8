"""
A temporary file in the open directory of its target, to which several processes write parts.

*found again*: a note beside the file has its name. Neither name has the form of a key, or of a temporary file that is
removed when its writer is gone.
*one writer*: a part is written, synced and recorded under a lock of its range, by the process that the part belongs to
at that moment. The file is renamed to its key under a lock of the whole file. So a late writer cannot change what was
verified.
*the last writer counts*: after the bytes of the object, the file has a random mark for each part, which the part's last
writer has set. The mark is the receipt. So an older record of a part, repeated by a stranger, is not valid.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from snapferry.stores.backends.directory.paths.beneath import LIST, READ
from snapferry.stores.backends.directory.paths.root import (
    NOTE_ENDING,
    PARTS,
    TEMPORARY,
    Folder,
    is_paused,
    sweep,
)
from snapferry.stores.backends.directory.store_directory import StoreDirectory
from snapferry.stores.backends.parts_note import LARGEST_NOTE, PartsNote, decode_note, new_secret
from snapferry.stores.errors import PartsGone, StoreError
from snapferry.stores.features import PartsShape, PartsUpload
from snapferry.stores.runtime.liveness import identity

from .locks import LOCKS, LockHeld, Turn, can_lock, locked

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Bytes of one write: a network file system may stop in the middle of a longer one.
_PIECE: Final = 4 * 1024 * 1024
# The mode of a file -> the mode of its note: the secret in the note is not for all other users.
_NOT_OTHERS: Final = {0o644: 0o600, 0o664: 0o660}

# A file gets its name shortly before its note does. A younger file without a note is not lost.
_LOST_AFTER_S: Final = 60.0

_MARK_BYTES: Final = 16
_NO_MARK: Final = bytes(_MARK_BYTES)

_numbers = itertools.count()


def begin_parts(directory: StoreDirectory, key: str, owner: str, shape: PartsShape) -> PartsUpload | None:
    """As `TakesParts.begin_parts`: None where the file system has no locks of ranges."""
    if not LOCKS:
        return None
    with directory.errors(key):
        root = directory.root(create=True)
        made, _ = root.make(key.rpartition("/")[0])
        folder = Folder(made)
        sweep(folder.descriptor)
        _sweep_lost(folder)
        upload = _FileOfParts(directory, key, owner, folder, PartsNote(new_secret(), shape))
        return upload if upload.create(root.file_mode) else None


def join_parts(directory: StoreDirectory, key: str, owner: str) -> PartsUpload | None:
    """As `TakesParts.join_parts`."""
    if not LOCKS:
        return None
    with directory.errors(key):
        folder = directory.root().folder_if_there(key.rpartition("/")[0])
        note = None if folder is None else _read_note(folder, _note_name(key, owner))
        if folder is None or note is None:
            return None
        upload = _FileOfParts(directory, key, owner, folder, note)
        return upload if upload.is_there() else None


def drop_parts(directory: StoreDirectory, key: str, owner: str) -> bool:
    """As `TakesParts.drop_parts`. An upload is in a directory: where there is none at all, nothing is mounted."""
    try:
        root = directory.root()
        folder = root.folder_if_there(key.rpartition("/")[0])
        if folder is None:
            return root.folder_if_there(key.partition("/")[0]) is not None
        note = _read_note(folder, _note_name(key, owner))
    except (OSError, StoreError):
        return False
    return note is None or _FileOfParts(directory, key, owner, folder, note).abort()


def _note_name(key: str, owner: str) -> str:
    digest = hashlib.sha256(f"{key.rpartition('/')[2]}\0{owner}".encode()).hexdigest()
    return f"{PARTS}{digest[:24]}{NOTE_ENDING}"


def _read_note(folder: Folder, name: str) -> PartsNote | None:
    try:
        descriptor = os.open(name, READ, dir_fd=folder.descriptor)
    except FileNotFoundError:
        return None
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return decode_note(os.pread(descriptor, LARGEST_NOTE + 1, 0)) if is_file else None
    finally:
        os.close(descriptor)


def _is_file(folder: Folder, name: str) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False).st_mode)


def _sweep_lost(folder: Folder) -> None:
    """Remove files without a note: a power cut, or another upload for the same owner, has removed the note."""
    with suppress(OSError):
        listed = Folder(os.open(".", LIST, dir_fd=folder.descriptor))
        names = [name for name in os.listdir(listed.descriptor) if name.startswith(PARTS)]
        notes = [
            _read_note(folder, name)
            for name in names
            if name.endswith(NOTE_ENDING) and _is_file(folder, name)
        ]
        noted = {PARTS + note.tag for note in notes if note is not None}
        for name in names:
            if not name.endswith(NOTE_ENDING) and name not in noted:
                found = os.stat(name, dir_fd=listed.descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > _LOST_AFTER_S:
                    os.unlink(name, dir_fd=listed.descriptor)


class _FileOfParts:
    def __init__(
        self, directory: StoreDirectory, key: str, owner: str, folder: Folder, note: PartsNote
    ) -> None:
        self.shape = note.shape
        self.name = note.tag
        self.secret = note.secret
        self._directory = directory
        self._key = key
        self._folder = folder
        self._note = note
        self._note_name = _note_name(key, owner)
        self._file_name = PARTS + note.tag
        self._file_bytes = note.shape.length + note.shape.parts * _MARK_BYTES
        self._turn = Turn(self._file_bytes)

    def create(self, mode: int) -> bool:
        """Make the file and the note. Return False, and leave nothing, where the file cannot be locked."""
        at = self._folder.descriptor
        # Until there is a note, both are temporary files of this process, which others remove when it is gone.
        file, note = (f"{TEMPORARY}{identity()}-parts{next(_numbers)}" for _ in range(2))
        try:
            descriptor = os.open(file, _CREATE, mode, dir_fd=at)
            try:
                os.ftruncate(descriptor, self._file_bytes)
                lockable = can_lock(descriptor)
            finally:
                os.close(descriptor)
            if not lockable:
                os.unlink(file, dir_fd=at)
                return False
            descriptor = os.open(note, _CREATE, _NOT_OTHERS.get(mode, 0o600), dir_fd=at)
            try:
                os.write(descriptor, self._note.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(note, self._note_name, src_dir_fd=at, dst_dir_fd=at)
            os.rename(file, self._file_name, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            for name in (file, note):
                with suppress(OSError):
                    os.unlink(name, dir_fd=at)
            self.abort()
            raise
        return True

    def is_there(self) -> bool:
        """Return whether the file is there, as long as it must be."""
        try:
            found = os.stat(self._file_name, dir_fd=self._folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == self._file_bytes

    def write(
        self, part: int, data: bytearray, mine: Callable[[], bool], record: Callable[[str], bool], /
    ) -> None:
        start, stop = self.shape.range_of(part)
        if len(data) != stop - start:
            raise ValueError("not as many bytes as the part has")
        with self._opened() as descriptor, self._locked(descriptor, start, stop - start):
            self._check_named(descriptor)
            if mine():
                with self._directory.errors(self._key):
                    mark = self._write(descriptor, part, data)
                record(mark.hex())

    def _write(self, descriptor: int, part: int, data: bytearray) -> bytes:
        """Write *part*, durably; return its new mark."""
        at = self.shape.length + part * _MARK_BYTES
        if os.pread(descriptor, _MARK_BYTES, at) != _NO_MARK:
            # After a power cut, the mark of the old bytes must not stand for a mixture of old and new ones.
            _pwrite(descriptor, _NO_MARK, at)
            os.fsync(descriptor)
        mark = secrets.token_bytes(_MARK_BYTES)
        # The kernel lets one writer at a time into a file. Those that wait for it keep a core busy.
        with self._turn.taken(descriptor):
            _pwrite(descriptor, data, self.shape.range_of(part)[0])
        _pwrite(descriptor, mark, at)
        os.fsync(descriptor)
        return mark

    def kept(self, receipts: Mapping[int, str], /) -> set[int]:
        with self._opened() as descriptor:
            self._check_named(descriptor)
            return self._marked(descriptor, receipts)

    def _marked(self, descriptor: int, receipts: Mapping[int, str]) -> set[int]:
        """Return those parts whose marks are as in *receipts*."""
        with self._directory.errors(self._key):
            marks = _pread(descriptor, self.shape.parts * _MARK_BYTES, self.shape.length).hex()
        digits = 2 * _MARK_BYTES
        found = {part: marks[part * digits : (part + 1) * digits] for part in range(self.shape.parts)}
        return {part for part, receipt in receipts.items() if found.get(part) == receipt}

    def commit(self, settled: Callable[[], Sequence[str]], /) -> None:
        at, name = self._folder.descriptor, self._key.rpartition("/")[2]
        with self._opened() as descriptor, self._locked(descriptor):
            self._check_named(descriptor)
            receipts = dict(enumerate(settled()))
            if len(self._marked(descriptor, receipts)) != self.shape.parts:
                raise self._gone()
            with self._directory.errors(self._key):
                os.ftruncate(descriptor, self.shape.length)
                os.fsync(descriptor)
                os.rename(self._file_name, name, src_dir_fd=at, dst_dir_fd=at)
                with suppress(FileNotFoundError):
                    os.unlink(self._note_name, dir_fd=at)

    def abort(self) -> bool:
        at, gone = self._folder.descriptor, True
        for name in (self._file_name, self._note_name):
            try:
                if name == self._file_name or self._is_noted():
                    os.unlink(name, dir_fd=at)
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def _is_noted(self) -> bool:
        """Return whether the note is of this upload: another one for the same owner may have taken its place."""
        note = _read_note(self._folder, self._note_name)
        return note is None or note.tag == self.name

    def abort_others(self) -> None:
        sweep(self._folder.descriptor, is_paused)

    def close(self) -> None:
        return None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with self._directory.errors(self._key):
            try:
                descriptor = os.open(self._file_name, _WRITE, dir_fd=self._folder.descriptor)
            except FileNotFoundError:
                raise self._gone() from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self, descriptor: int, start: int = 0, length: int = 0) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(descriptor, start, length))
            except LockHeld:
                raise PartsGone(
                    self._directory.label,
                    self._key,
                    "a process holds a lock of its temporary file and does not go on",
                ) from None
            yield

    def _check_named(self, descriptor: int) -> None:
        """Raise `PartsGone` unless the open file still has its name and its length."""
        with self._directory.errors(self._key):
            found = os.fstat(descriptor)
            if not self.is_there() or found.st_size != self._file_bytes:
                raise self._gone()
            named = os.stat(self._file_name, dir_fd=self._folder.descriptor, follow_symlinks=False)
            # A file with a second name may be one that must not be written to.
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not os.path.samestat(found, named):
                raise self._gone()

    def _gone(self) -> PartsGone:
        return PartsGone(self._directory.label, self._key, "its temporary file is gone or was changed")


def _pwrite(descriptor: int, data: bytes | bytearray, start: int) -> None:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done : done + _PIECE], start + done)


def _pread(descriptor: int, length: int, start: int) -> bytes:
    """Return *length* bytes from *start* on, fewer only at the end of the file."""
    parts: list[bytes] = []
    while length and (found := os.pread(descriptor, length, start)):
        parts.append(found)
        start += len(found)
        length -= len(found)
    return b"".join(parts)
