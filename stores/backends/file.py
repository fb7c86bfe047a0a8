"""
A store in a directory.

*whole or not at all*: bytes go to a temporary file in the target's own
directory, are synced, and take the target's name by one rename. The name of a
temporary file has not the shape of a key, so what a dead writer leaves behind
is never taken for an object; the next writer in that directory sweeps it.
*durable*: bytes are on disk before their name is visible; `flush` does the same
for the names. So after a power cut a visible object is a whole one. Uploads that
are committed together share one wait for the disk.

Keys are looked up relative to an open handle of the root, which the kernel
resolves markedly faster than absolute paths. A backend is therefore opened for
a piece of work and closed after it: a root that is replaced meanwhile is not
written to behind its owner's back for longer than that.
"""

from __future__ import annotations

import itertools
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ..base import Backend, Capabilities, Listed, OpenReader, Upload
from ..errors import (
    AccessDenied,
    KeyMissing,
    StoreError,
    StoreFault,
    StoreNotFound,
)
from ..findings import Finding
from ..liveness import identity, is_dead
from .file_errors import translated
from .file_sizes import ABSENT, lengths
from .file_streams import FileReader, FileUpload
from .file_sync import sync_file_system

_READ = os.O_RDONLY | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# A temporary file is named .tmp-<identity of its writer>-<number>. It is swept when its writer is known to be dead,
# or when nothing was written to it for this long (another machine's processes cannot be asked).
_TEMPORARY = ".tmp-"
STALE_AFTER_S = 24 * 3600.0

# Uploads that share one syncfs: each holds a descriptor until then. From a few on it is cheaper than an
# fsync for each.
COMMITS_TOGETHER = 64
FEW = 4

# Up to this many bytes are read at once, into memory of their own; more go through a buffer that is used again.
FETCHED_BYTES = 64 * 1024

_numbers = itertools.count()


class FileBackend(Backend):
    """
    Bytes in files below the directory *root*, an absolute path.

    *concurrency* is 1 by default: a local file system answers at the speed of
    the CPU, and Python threads would only contend. Raise it for network mounts.
    Without *create* a root that does not exist is an error for a writer too:
    where a mount is missing, it must not be replaced by a directory in its place.
    """

    def __init__(self, root: str, *, concurrency: int = 1, create: bool = True) -> None:
        self.label = f"file://{root}"
        self.capabilities = Capabilities(
            concurrency=concurrency, pages_listings=False, commits_together=COMMITS_TOGETHER
        )
        self._root = root
        self._create_root = create
        self._handle: int | None = None
        self._lock = threading.Lock()
        # Memory that was touched before costs half of what fresh memory does; each copy in flight has one.
        self._buffers: list[memoryview] = []

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def check(self, *, for_writing: bool) -> None:
        with self._errors(""):
            try:
                mode = os.stat(self._root).st_mode
            except FileNotFoundError:
                if not for_writing or not self._create_root:
                    raise self._no_root(for_writing) from None
                existing = os.path.dirname(self._root)
                while not os.path.lexists(existing):
                    existing = os.path.dirname(existing)
                mode = os.stat(existing).st_mode
            except NotADirectoryError:
                raise StoreNotFound(self.label, "", "a part of the path is not a directory") from None
            else:
                existing = self._root
        if not stat.S_ISDIR(mode):
            raise StoreNotFound(self.label, "", f"{existing} is not a directory")
        if not os.access(existing, os.X_OK | (os.W_OK if for_writing else os.R_OK)):
            raise AccessDenied(
                self.label, "", f"no permission to {'write to' if for_writing else 'read'} {existing}"
            )

    def prepare(self) -> None:
        with self._errors(""):
            self._make_root()

    def size(self, key: str) -> int | None:
        try:
            found = os.stat(key, dir_fd=self._dir())
        except FileNotFoundError:
            return None
        except StoreNotFound:
            if not self._create_root:
                raise
            return None
        except OSError as error:
            raise self._translate(error, key) from error
        if not stat.S_ISREG(found.st_mode):
            raise StoreFault(self.label, key, "is not a regular file")
        return found.st_size

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """As for every backend; many at once are asked for on all cores."""
        if self.capabilities.concurrency > 1:
            return super().sizes(keys)
        try:
            found = lengths(self._dir(), keys)
        except StoreNotFound:
            if not self._create_root:
                raise
            return [None] * len(keys)
        except OSError as error:
            raise self._translate(error, str(error.filename or "")) from error
        # Whatever is not a file, `size` has the words for.
        return [
            length if length >= 0 else None if length == ABSENT else self.size(key)
            for key, length in zip(keys, found, strict=True)
        ]

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        try:
            return FileReader(self, key, os.open(key, _READ, dir_fd=self._dir()))
        except FileNotFoundError:
            raise KeyMissing(self.label, key, "nothing is filed here") from None
        except OSError as error:
            raise self._translate(error, key) from error

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > FETCHED_BYTES:
            return None
        try:
            descriptor = os.open(key, _READ, dir_fd=self._dir())
            try:
                return os.read(descriptor, max(size_hint, 0) + 1)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise KeyMissing(self.label, key, "nothing is filed here") from None
        except OSError as error:
            raise self._translate(error, key) from error

    def write(self, key: str, data: bytes) -> None:
        with self.upload(key, len(data)) as upload:
            upload.write(data)
            upload.commit()

    def upload(self, key: str, size_hint: int) -> Upload:
        return FileUpload(self, key)

    def stage(self, key: str, data: bytes) -> Upload:
        upload = FileUpload(self, key)
        try:
            upload.write(data)
            upload.close()
        except BaseException:
            upload.abort()
            raise
        return upload

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        if len(uploads) < FEW:
            super().commit_all(uploads)
            return
        self.flush()
        failed: StoreError | None = None
        for upload in uploads:
            if not isinstance(upload, FileUpload):
                raise TypeError("uploads of another backend")
            try:
                upload.show()
            except StoreError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self._dir()
        with self._errors(prefix):
            yield from self._walk(prefix, start_after)

    def delete(self, key: str) -> None:
        with self._errors(key), suppress(FileNotFoundError, StoreNotFound):
            os.unlink(key, dir_fd=self._dir())

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        from .file_probe import probe_directory

        return probe_directory(self, self._root, for_writing=for_writing)

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        from .file_probe import probe_clone

        if isinstance(source, FileBackend):
            yield from probe_clone(self, self._root, source, source._root, key)

    def free_bytes(self) -> int | None:
        from .file_probe import free_bytes

        with self._errors(""):
            return free_bytes(self._root)

    def flush(self) -> None:
        if self._handle is None:
            return
        with self._errors(""):
            sync_file_system(self._handle)

    def _dir(self, *, create: bool = False) -> int:
        """Return the open root. It is created only by the first write: reading must not make a store."""
        if self._handle is None:
            with self._lock, self._errors(""):
                if self._handle is None:
                    if create and self._create_root:
                        self._make_root()
                    try:
                        self._handle = os.open(self._root, _DIRECTORY)
                    except (FileNotFoundError, NotADirectoryError):
                        raise self._no_root(create) from None
        return self._handle

    def _no_root(self, for_writing: bool) -> StoreNotFound:
        hint = "; is it mounted here?" if for_writing or not self._create_root else ""
        return StoreNotFound(self.label, "", f"there is no such directory{hint}")

    def _make_root(self) -> None:
        try:
            os.makedirs(self._root, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise StoreNotFound(self.label, "", f"the directory cannot be made: {error.strerror}") from error

    def _create(self, key: str) -> tuple[int, str]:
        """Open a new temporary file beside *key*, making its directories; return it and its name."""
        root = self._dir(create=True)
        folder = key[: key.rfind("/")]
        temporary = f"{folder}/{_TEMPORARY}{identity()}-{next(_numbers)}"
        if not self._make_folder(root, folder):
            self._sweep(root, folder)
        return os.open(temporary, _CREATE, 0o666, dir_fd=root), temporary

    def _make_folder(self, root: int, folder: str) -> bool:
        """
        Make *folder*, its parent and what is above them; say whether *folder* is new.

        Parent first: below some millions of objects both are mostly new, and what is above them is not.
        """
        cut = folder.rfind("/")
        if cut > 0:
            parent = folder[:cut]
            try:
                os.mkdir(parent, dir_fd=root)
            except FileExistsError:
                pass
            except FileNotFoundError:
                self._make_folder(root, parent)
        try:
            os.mkdir(folder, dir_fd=root)
        except FileExistsError:
            return False
        return True

    @staticmethod
    def _sweep(root: int, folder: str) -> None:
        """Remove temporary files whose writers are gone. A directory holds few files: the layout spreads them."""
        descriptor = os.open(folder, _DIRECTORY, dir_fd=root)
        try:
            for name in os.listdir(descriptor):
                if name.startswith(_TEMPORARY):
                    with suppress(OSError):
                        if _is_abandoned(name, os.stat(name, dir_fd=descriptor).st_mtime):
                            os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def _rename(self, temporary: str, key: str) -> None:
        root = self._dir()
        os.rename(temporary, key, src_dir_fd=root, dst_dir_fd=root)

    def _sync(self, temporary: str) -> None:
        descriptor = os.open(temporary, _READ, dir_fd=self._dir())
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _discard(self, temporary: str) -> None:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=self._dir())

    def _walk(self, folder: str, start_after: str) -> Iterator[Listed]:
        try:
            descriptor = os.open(folder, _DIRECTORY, dir_fd=self._dir())
        except FileNotFoundError:
            return
        with os.scandir(descriptor) as found:
            entries = [(entry.name + "/" if entry.is_dir() else entry.name) for entry in found]
        os.close(descriptor)
        for name in sorted(entries):
            path = folder + name
            if not name.endswith("/"):
                if path > start_after:
                    with suppress(FileNotFoundError):
                        status = os.stat(path, dir_fd=self._dir())
                        yield Listed(path, status.st_size, status.st_mtime)
            elif path > start_after or start_after.startswith(path):
                yield from self._walk(path, start_after)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._translate(error, key) from error

    def _translate(self, error: OSError, key: str) -> StoreError:
        return translated(error, self.label, key)


def _is_abandoned(name: str, modified: float) -> bool:
    """Say whether nobody will finish the temporary file *name*, last written at *modified*."""
    writer = name.removeprefix(_TEMPORARY).rpartition("-")[0]
    return is_dead(writer) or time.time() - modified > STALE_AFTER_S
