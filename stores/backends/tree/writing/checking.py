"""Whether the files of a tree are there, by the compiled extension if there is one. Their bytes are not read."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, Generic, NamedTuple, Self, TypeVar

from snapferry.stores.backends.directory.native.extension import MOST_NAMES, Extension, extension
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.runtime.interruption import checkpoint

from .folders import TreeFolders
from .modes import unlock

NAMES_FOR_A_THREAD: Final = 256
"""So many names in a directory are worth handing to a thread."""

# The most checks that wait for an answer. Each keeps its directory open, and its names in memory.
_AHEAD: Final = 8

_Asked = TypeVar("_Asked")
_Found = Callable[[], bytes]


class _Files(NamedTuple):
    """Files of the directory *path*. The reference keeps the directory open."""

    folder: Folder
    path: str
    names: Sequence[str]
    modes: Sequence[int]


class FileChecks(Generic[_Asked]):
    """
    Checks the files of directories, in a ``with`` block. A thread checks large directories while the caller goes on.

    The answers come in the order of the questions.
    """

    def __init__(self, folders: TreeFolders) -> None:
        self._folders = folders
        self._pending: deque[tuple[_Asked, Iterator[int]]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def ask(self, asked: _Asked, path: str, names: Sequence[str], modes: Sequence[int]) -> None:
        """
        Ask which of *names*, in the directory *path*, are not files or have other modes than *modes*.

        A directory that is not there has none of them. Raises `StoreError`.
        """
        self._pending.append((asked, self._positions(path, names, modes)))

    def answers(self, *, last: bool = False) -> Iterator[tuple[_Asked, Iterator[int]]]:
        """
        Yield what was asked and the positions in its names, once: of what is answered, and with *last* of everything.

        The positions raise `StoreError`.
        """
        while self._pending and (last or self._pool is None or len(self._pending) > _AHEAD):
            yield self._pending.popleft()

    def _positions(self, path: str, names: Sequence[str], modes: Sequence[int]) -> Iterator[int]:
        """Begin to check the files, and return the positions of those that are not as listed."""
        folder = self._folders.find(path)
        if folder is None:
            return iter(range(len(names)))
        files = _Files(folder, path, names, modes)
        compiled = extension()
        if compiled is None:
            return self._one_by_one(files, range(len(names)))
        check_many = partial(compiled.check_many, folder.descriptor)
        begun: list[tuple[range, _Found]] = []
        for first in range(0, len(names), MOST_NAMES):
            some = range(first, min(first + MOST_NAMES, len(names)))
            check = partial(check_many, names[first : some.stop], modes[first : some.stop])
            begun.append((some, self._begin(check) if len(names) >= NAMES_FOR_A_THREAD else check))
        return self._collect(compiled, files, begun)

    def _begin(self, check: _Found) -> _Found:
        """Begin a *check* in the thread; return what waits for its result."""
        # Without memory for a thread, this one checks.
        with suppress(RuntimeError):
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="checks")
            return self._pool.submit(check).result
        return check

    def _collect(
        self, compiled: Extension, files: _Files, begun: Iterable[tuple[range, _Found]]
    ) -> Iterator[int]:
        for some, check in begun:
            checkpoint()
            found = check()
            if found.count(compiled.AS_LISTED) == len(some):
                continue
            yield from (at for at, each in zip(some, found, strict=True) if each == compiled.OTHERWISE)
            unknown = [at for at, each in zip(some, found, strict=True) if each == compiled.UNKNOWN]
            yield from self._one_by_one(files, unknown)

    def _one_by_one(self, files: _Files, some: Iterable[int]) -> Iterator[int]:
        for at in some:
            if at % MOST_NAMES == 0:
                checkpoint()
            if not self._is_as_listed(files, at):
                yield at

    def _is_as_listed(self, files: _Files, at: int) -> bool:
        folder, name = files.folder.descriptor, files.names[at]
        try:
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except PermissionError:
                if not unlock(folder):
                    raise
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._folders.fail(error, f"{files.path}/{name}" if files.path else name)
        return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == files.modes[at]
