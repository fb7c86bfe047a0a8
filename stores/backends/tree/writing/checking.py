"""Whether the files of a tree are there, by the compiled extension if there is one. Their bytes are not read."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from snapferry.stores.backends.directory.native.extension import MOST_NAMES, extension
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.runtime.interruption import checkpoint

from .folders import TreeFolders
from .modes import unlock

NAMES_FOR_A_THREAD: Final = 256
"""So many names in a directory are worth handing to a thread."""

# Checks that a thread has ahead: each keeps its directory open, and its names in memory.
_AHEAD: Final = 8

_Asked = TypeVar("_Asked")
_Found = Callable[[], bytes]


class FileChecks(Generic[_Asked]):
    """
    Checks the files of one directory after the other, in a ``with`` block: large ones in a thread, ahead of the caller.

    What was asked comes back with each answer, in the same order.
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
        folder = self._folders.find(path)
        if folder is None:
            return iter(range(len(names)))
        compiled = extension()
        if compiled is None:
            return self._one_by_one(folder, path, names, modes, range(len(names)))
        pieces = [
            (
                range(first, min(first + MOST_NAMES, len(names))),
                self._begin(
                    partial(
                        compiled.check_many,
                        folder.descriptor,
                        names[first : first + MOST_NAMES],
                        modes[first : first + MOST_NAMES],
                    ),
                    len(names),
                ),
            )
            for first in range(0, len(names), MOST_NAMES)
        ]
        return self._collect(folder, path, names, modes, pieces)

    def _begin(self, check: _Found, names: int) -> _Found:
        """Begin a *check* in the thread if it is worth it; return what returns its result."""
        if names >= NAMES_FOR_A_THREAD:
            # Without memory for a thread, this one checks.
            with suppress(RuntimeError):
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix="checks")
                return self._pool.submit(check).result
        return check

    def _collect(
        self,
        folder: Folder,
        path: str,
        names: Sequence[str],
        modes: Sequence[int],
        pieces: Sequence[tuple[range, _Found]],
    ) -> Iterator[int]:
        compiled = extension()
        assert compiled is not None
        for some, found_of in pieces:
            checkpoint()
            found = found_of()
            if found.count(compiled.AS_LISTED) == len(some):
                continue
            yield from (at for at, each in zip(some, found, strict=True) if each == compiled.OTHERWISE)
            unknown = [at for at, each in zip(some, found, strict=True) if each == compiled.UNKNOWN]
            yield from self._one_by_one(folder, path, names, modes, unknown)

    def _one_by_one(
        self, folder: Folder, path: str, names: Sequence[str], modes: Sequence[int], some: Sequence[int]
    ) -> Iterator[int]:
        for at in some:
            if at % MOST_NAMES == 0:
                checkpoint()
            if not self._is_as_listed(folder, path, names[at], modes[at]):
                yield at

    def _is_as_listed(self, folder: Folder, path: str, name: str, mode: int) -> bool:
        try:
            try:
                found = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
            except PermissionError:
                if not unlock(folder.descriptor):
                    raise
                found = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._folders.fail(error, f"{path}/{name}" if path else name)
        return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
