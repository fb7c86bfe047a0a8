"""
What is in a tree, in the order of a manifest: by the bytes of PATH, in which a directory ends with a slash.

That is the order of a walk that visits each directory before what is in it, and the entries of a directory by their
names, those of directories with a slash. So nothing is sorted but one directory at a time.

*left out*: links that lead nowhere, and everything that is neither a file nor a directory. Without *follow*, all links.
*refused*: names that a manifest cannot hold, and directories that cannot be read.
*loops*: a link to a directory above it is followed as often as the system follows links in one path, about 40 times. A
tree in which that makes too many entries is refused.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

from snapferry.stores.errors import ManifestSyntaxError, ManifestTooLarge
from snapferry.stores.runtime.interruption import checkpoint

from .place import Identity, TreePlace

FILE: Final = "F"
DIRECTORY: Final = "D"
LINK: Final = "L"

# Entries that loops of links may add to a tree.
MOST_IN_LOOPS: Final = 1_000_000

# Directories of one directory that are listed ahead for each thread.
AHEAD: Final = 4

# The least wait for a file system after which directories are listed ahead.
_WAITED_S: Final = 0.005


class Found(NamedTuple):
    """
    A file, a directory, or a link to a file that is followed.

    *size* is in bytes, for a link its own; *length* is that of the bytes to read. Both are 0 for a directory. *path*
    begins with ``./``, and ends with a slash for a directory.
    """

    kind: str
    mode: int
    size: int
    length: int
    path: str


_path = attrgetter("path")


@dataclass
class LeftOut:
    """How many entries were left out: *special* files, links that lead *nowhere*, and *excluded* ones."""

    special: int = 0
    nowhere: int = 0
    excluded: int = 0


class _Listed(NamedTuple):
    """A directory: its identity, and what is in it, in order; paths are below the root, without ``./``."""

    identity: tuple[int, int]
    found: list[Found]
    left_out: LeftOut


class Walk:
    """
    A walk through the tree at *place*. Iterate over it once.

    *excluded* tells of an absolute path whether it is left out. The directories *without* and all that is in them are
    left out as well, by whatever path or link they are reached. *jobs* directories are listed at once. *left_out* is
    complete at the end.
    """

    def __init__(
        self,
        place: TreePlace,
        *,
        follow: bool = True,
        excluded: Callable[[str], bool] | None = None,
        without: Collection[Identity] = (),
        jobs: int = 1,
    ) -> None:
        self.left_out = LeftOut()
        self._place = place
        self._follow = follow
        self._excluded = excluded
        self._without = without
        self._jobs = jobs
        self._in_loops = 0

    def __iter__(self) -> Iterator[Found]:
        """
        Yield everything, the root first.

        Raises `StoreError`: `StoreNotFound` for the root, `AccessDenied`, `KeyMissing` for a directory that was
        removed meanwhile, `ManifestSyntaxError` for a name that no manifest can hold, `ManifestTooLarge`.
        """
        mode = self._place.mode()
        with ExitStack() as stack:
            pool = None
            if self._jobs > 1:
                pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="walk")
                stack.callback(pool.shutdown, cancel_futures=True)
            yield Found(DIRECTORY, mode, 0, 0, "./")
            yield from self._below(_Ahead(self._list, pool, AHEAD * self._jobs))

    def _below(self, ahead: _Ahead) -> Iterator[Found]:
        root = self._enter(ahead, "", set())
        above = {root.identity}
        # For each open directory: what is left of it, its identity, and whether it is open a second time.
        stack = [(iter(root.found), root.identity, False)]
        loops = 0
        while stack:
            left, identity, repeated = stack[-1]
            for found in left:
                if loops:
                    self._count_in_loop(found)
                yield found
                if found.kind == DIRECTORY:
                    listed = self._enter(ahead, found.path[2:-1], above)
                    again = listed.identity in above
                    loops += again
                    above.add(listed.identity)
                    stack.append((iter(listed.found), listed.identity, again))
                    break
            else:
                stack.pop()
                loops -= repeated
                if not repeated:
                    above.discard(identity)

    def _enter(self, ahead: _Ahead, path: str, above: set[tuple[int, int]]) -> _Listed:
        checkpoint()
        listed = ahead.result(path)
        self.left_out.special += listed.left_out.special
        self.left_out.nowhere += listed.left_out.nowhere
        self.left_out.excluded += listed.left_out.excluded
        # What is in a loop is not listed ahead: a loop may be larger than the tree.
        if listed.identity not in above:
            ahead.prepare([found.path[2:-1] for found in listed.found if found.kind == DIRECTORY])
        return listed

    def _count_in_loop(self, found: Found) -> None:
        self._in_loops += 1
        if self._in_loops > MOST_IN_LOOPS:
            raise ManifestTooLarge(
                self._place.label,
                found.path,
                "is in a loop of links that makes more than a million entries; exclude one of the links, or use"
                " --no-follow",
            )

    def _list(self, path: str) -> _Listed:
        place, found, left_out = self._place, [], LeftOut()
        prefix = f"{path}/" if path else ""
        folder = place.open_folder(path, follow=self._follow)
        try:
            status = os.fstat(folder)
            with os.scandir(folder) as entries:
                for entry in entries:
                    one = self._look_at(entry, prefix, left_out)
                    if one is not None:
                        found.append(one)
        except OSError as error:
            raise place.error(error, path) from error
        finally:
            os.close(folder)
        # The order of code points is that of the bytes of UTF-8.
        found.sort(key=_path)
        return _Listed((status.st_dev, status.st_ino), found, left_out)

    def _look_at(self, entry: os.DirEntry[str], prefix: str, left_out: LeftOut) -> Found | None:
        path = prefix + entry.name
        if not path.isascii():
            self._check_utf8(path)
        if self._excluded is not None and self._excluded(self._place.absolute(path)):
            left_out.excluded += 1
            return None
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None  # removed meanwhile
        mode, size = status.st_mode, status.st_size
        kind, length = FILE, size
        if stat.S_ISLNK(mode):
            if not self._follow:
                return None
            target = self._place.target_of(path)
            if target is None:
                left_out.nowhere += 1
                return None
            kind, length = LINK, target.st_size
            status = target
        is_folder = stat.S_ISDIR(status.st_mode)
        leave_out = bool(self._without) and self._is_without(path, status, is_link=kind == LINK)
        if leave_out or not (is_folder or stat.S_ISREG(status.st_mode)):
            left_out.excluded += leave_out
            left_out.special += not leave_out
            return None
        if is_folder:
            kind, size, length = DIRECTORY, 0, 0
        if "\n" in entry.name:
            raise ManifestSyntaxError(
                self._place.label,
                path,
                "has a newline in its name, and no manifest can hold it; rename or exclude it",
            )
        return Found(
            kind, stat.S_IMODE(mode), size, length, f"./{path}/" if kind == DIRECTORY else f"./{path}"
        )

    def _is_without(self, path: str, status: os.stat_result, *, is_link: bool) -> bool:
        if stat.S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) in self._without:
            return True
        # A link may lead below such a directory.
        return is_link and self._place.leads_into(path, self._without)

    def _check_utf8(self, path: str) -> None:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ManifestSyntaxError(
                self._place.label, ascii(os.fsencode(path)), "has a name that is not UTF-8; rename it"
            ) from None


class _Ahead:
    """
    Lists up to *width* directories after each directory ahead in the threads of *pool*; without one, none.

    It begins with that when listing has waited for the file system: where it has not, threads only contend for the
    interpreter.
    """

    def __init__(
        self, listing: Callable[[str], _Listed], pool: ThreadPoolExecutor | None, width: int
    ) -> None:
        self._listing = listing
        self._pool = pool
        self._begun: dict[str, Future[_Listed]] = {}
        # path of a directory -> the one after it in the same directory
        self._next: dict[str, str] = {}
        self._width = width
        self._waits = False
        self._waited = self._worked = 0.0

    def prepare(self, paths: list[str]) -> None:
        """Note that the directories *paths* will be asked for in this order."""
        if self._pool is not None:
            self._next.update(pairwise(paths))

    def result(self, path: str) -> _Listed:
        """Return the directory *path*."""
        if self._pool is not None and self._waits:
            following = path
            for _ in range(self._width):
                if (found := self._next.get(following)) is None:
                    break
                following = found
                if following not in self._begun:
                    self._begun[following] = self._pool.submit(self._listing, following)
        self._next.pop(path, None)
        begun = self._begun.pop(path, None)
        return self._timed(path) if begun is None else begun.result()

    def _timed(self, path: str) -> _Listed:
        began, worked = time.monotonic(), time.thread_time()
        listed = self._listing(path)
        worked = time.thread_time() - worked
        self._worked += worked
        self._waited += time.monotonic() - began - worked
        self._waits = self._waited > max(_WAITED_S, 2 * self._worked)
        return listed
