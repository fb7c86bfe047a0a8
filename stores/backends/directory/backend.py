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

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.diagnosis.diagnosable import Diagnosable
from snapferry.stores.diagnosis.findings import Finding
from snapferry.stores.errors import AccessDenied, KeyMissing, StoreError, StoreFault, StoreNotFound
from snapferry.stores.features import FiniteSpace, Mounted
from snapferry.stores.streams import OpenReader, Upload

from .errors import translated
from .listing import list_keys
from .paths.beneath import READ
from .paths.root import Root
from .paths.root_path import has_link, make_root
from .paths.rules import DirectoryRules, directory_rules
from .sizes import ABSENT, lengths
from .streams import FileReader, FileUpload

# Uploads that share one syncfs: each holds a descriptor until then. From a few on it is cheaper than an
# fsync for each.
COMMITS_TOGETHER = 64
FEW = 4

# Up to this many bytes are read at once, into memory of their own; more go through a buffer that is used again.
FETCHED_BYTES = 64 * 1024


class DirectoryBackend(Backend, Diagnosable, FiniteSpace, Mounted):
    """
    Bytes in files below the directory *root*, an absolute path.

    *concurrency* is 1 by default: a local file system answers at the speed of
    the CPU, and Python threads would only contend. Raise it for network mounts.
    Without *create* a root that does not exist is an error for a writer too:
    where a mount is missing, it must not be replaced by a directory in its place.
    Without *links* none is followed on the way to the root. *rules* are those of this process unless others are given.
    """

    def __init__(
        self,
        root: str,
        *,
        concurrency: int = 1,
        create: bool = True,
        links: bool = True,
        rules: DirectoryRules | None = None,
    ) -> None:
        self.label = f"file://{root}"
        self.capabilities = Capabilities(
            concurrency=concurrency, pages_listings=False, commits_together=COMMITS_TOGETHER
        )
        self._root = root
        self._create_root = create
        self.links = links
        self.rules = rules or directory_rules()
        self.opened: Root | None = None
        """The open root, once `root` was called."""
        self._lock = threading.Lock()
        # Memory that was touched before costs half of what fresh memory does; each copy in flight has one.
        self._buffers: list[memoryview] = []

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
            found = self.root().status(key)
        except StoreNotFound:
            if not self._create_root:
                raise
            return None
        except OSError as error:
            raise self.error(error, key) from error
        if found is None:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise self._no_file(key)
        return found.st_size

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """As for every backend; many at once are asked for on all cores."""
        if self.capabilities.concurrency > 1:
            return super().sizes(keys)
        try:
            found = lengths(self.root(), keys)
        except StoreNotFound:
            if not self._create_root:
                raise
            return [None] * len(keys)
        except OSError as error:
            raise self.error(error, str(error.filename or "")) from error
        # Whatever is not a file, `size` has the words for.
        return [
            length if length >= 0 else None if length == ABSENT else self.size(key)
            for key, length in zip(keys, found, strict=True)
        ]

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        return FileReader(self, key, *self.open_file(key))

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > FETCHED_BYTES:
            return None
        try:
            descriptor = (self.opened or self.root()).open(key, READ)
        except OSError as error:
            raise self._not_opened(error, key) from error
        try:
            data = os.pread(descriptor, max(size_hint, 0) + 1, 0)
            if not data:
                self._length(key, descriptor)
            # Most of what is no regular file cannot be read at a position. From what can, a caller takes only bytes
            # that hash to the address; for others it calls `open`, which looks.
            return data
        except OSError as error:
            self._length(key, descriptor)
            raise self.error(error, key) from error
        finally:
            os.close(descriptor)

    def open_file(self, key: str) -> tuple[int, int]:
        """Return a descriptor of the regular file under *key*, to read, and its length. Raises as `open` does."""
        descriptor = self._open(key)
        try:
            return descriptor, self._length(key, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def _length(self, key: str, descriptor: int) -> int:
        """Return the length of what is open under *key*. Raises `StoreFault` if that is no regular file."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise self._no_file(key)
        return found.st_size

    def _open(self, key: str) -> int:
        """Open whatever is under *key*, to read. Raises as `open` does."""
        try:
            return (self.opened or self.root()).open(key, READ)
        except OSError as error:
            raise self._not_opened(error, key) from error

    def _not_opened(self, error: OSError, key: str) -> StoreError:
        if isinstance(error, FileNotFoundError):
            return KeyMissing(self.label, key, "nothing is filed here")
        return self.error(error, key)

    def write(self, key: str, data: bytes) -> None:
        with self.upload(key, len(data)) as upload:
            upload.write(data)
            upload.commit()

    def upload(self, key: str, size_hint: int) -> Upload:
        return FileUpload(self, key)

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
        yield from list_keys(self.root(), self.label, prefix, start_after)

    def delete(self, key: str) -> None:
        folder, _, name = key.rpartition("/")
        with self._errors(key), suppress(FileNotFoundError, StoreNotFound):
            above = self.root().folder(folder)
            os.unlink(name, dir_fd=above.descriptor)

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        from .diagnosis import probe_directory

        return probe_directory(self, self._root, for_writing=for_writing)

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        from .diagnosis import probe_clone

        if isinstance(source, DirectoryBackend):
            yield from probe_clone(self, self._root, source, key)

    def clock(self) -> tuple[float, float] | None:
        return None

    def holds(self, space: str) -> bool:
        return os.path.isdir(os.path.join(self._root, space))

    def free_bytes(self) -> int | None:
        from .diagnosis import free_bytes

        with self._errors(""):
            return free_bytes(self._root)

    def flush(self) -> None:
        if self.opened is not None:
            with self._errors(""):
                self.opened.flush()

    def root(self, *, create: bool = False) -> Root:
        """
        Return the open root. It is created only by the first write: reading must not make a store.

        Raises `StoreNotFound`.
        """
        if self.opened is None:
            with self._lock, self._errors(""):
                if self.opened is None:
                    if create and self._create_root:
                        self._make_root()
                    try:
                        self.opened = Root(self._root, self.rules, links=self.links)
                    except OSError as error:
                        self._check_way(error)
                        if isinstance(error, FileNotFoundError | NotADirectoryError):
                            raise self._no_root(create) from None
                        raise
        return self.opened

    def _no_root(self, for_writing: bool) -> StoreNotFound:
        hint = "; is it mounted here?" if for_writing or not self._create_root else ""
        return StoreNotFound(self.label, "", f"there is no such directory{hint}")

    def _make_root(self) -> None:
        try:
            make_root(self._root, self.rules.folder_mode, links=self.links)
        except OSError as error:
            self._check_way(error)
            if isinstance(error, FileNotFoundError | FileExistsError | NotADirectoryError):
                said = f"the directory cannot be made: {error.strerror}"
                raise StoreFault(self.label, "", said) from error
            raise

    def _check_way(self, error: OSError) -> None:
        """Raise `AccessDenied` if a link that may not be followed is why the root gave *error*."""
        if not self.links and has_link(self._root):
            said = "a part of its path is a symbolic link, maybe a new one, that the allow-list was not asked about"
            raise AccessDenied(
                self.label, "", f"{said}; give the path without links, see docs/security.md"
            ) from error

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.error(error, key) from error

    def error(self, error: OSError, key: str) -> StoreError:
        """Return what *error* is, where it was about *key*."""
        return translated(error, self.label, key, self.opened)

    def _no_file(self, key: str) -> StoreFault:
        return StoreFault(self.label, key, self.root().in_the_way(key) or "is not a regular file")
