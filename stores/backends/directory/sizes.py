"""
The lengths of many files, asked for on all cores.

Where a file system is cached, each question takes some microseconds of the kernel's CPU time. So many keys are shared
among threads: the extension asks without the interpreter lock. Where it is missing, they are shared among processes.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import chain, groupby, islice
from typing import Final

from snapferry.stores.bulk.forked import Forked, worth
from snapferry.stores.runtime.interruption import checkpoint

from .native.extension import extension
from .paths.beneath import status_beneath
from .paths.root import Folder, Root

ABSENT: Final = -1
NO_FILE: Final = -2

# Keys from which on a process is worth its fork, and a thread its start. A batch has too few, because its worker has a
# process for each core.
KEYS_FOR_A_PROCESS: Final = 10_000
KEYS_FOR_A_THREAD: Final = 6000

# Keys between two checkpoints.
KEYS_AT_ONCE: Final = 1000


def lengths(root: Root, keys: Sequence[str]) -> array[int]:
    """
    Return the length in bytes of each of *keys* below *root*, `ABSENT`, or `NO_FILE`.

    Where a first-level shard is absent, one question answers for all of its keys in a row. Raises OSError with the key
    as its filename.
    """
    if extension() is not None:
        return _by_threads(root, keys)
    each = -(-len(keys) // worth(len(keys), KEYS_FOR_A_PROCESS)) or 1
    parts = [keys[at : at + each] for at in range(0, len(keys), each)]
    with ExitStack() as stack:
        others = [stack.enter_context(closing(Forked(partial(_answers, root, part)))) for part in parts[1:]]
        found = array("q")
        for piece in _ask(root, parts[0] if parts else ()):
            checkpoint()
            found += piece
        for part, other in zip(parts[1:], others, strict=True):
            answered = other.rest()
            if answered is None:
                # The child failed. This process asks again and raises the error.
                for piece in _ask(root, part):
                    checkpoint()
                    found += piece
            else:
                found.frombytes(answered)
    return found


def _by_threads(root: Root, keys: Sequence[str]) -> array[int]:
    """Do as `lengths`, for calls that release the interpreter lock."""
    pieces = [keys[at : at + KEYS_AT_ONCE] for at in range(0, len(keys), KEYS_AT_ONCE)]
    found = array("q")
    with ExitStack() as stack:
        asked: Iterator[array[int]] = map(partial(_piece, root), pieces)
        threads = worth(len(keys), KEYS_FOR_A_THREAD)
        # Without memory for a thread, this one asks.
        with suppress(RuntimeError):
            if threads > 1:
                pool = ThreadPoolExecutor(threads, thread_name_prefix="lengths")
                stack.callback(pool.shutdown, cancel_futures=True)
                asked = pool.map(partial(_piece, root), pieces)
        for piece in asked:
            checkpoint()
            found += piece
    return found


def _piece(root: Root, keys: Sequence[str]) -> array[int]:
    return array("q", chain.from_iterable(_ask(root, keys)))


def _answers(root: Root, keys: Sequence[str]) -> Iterator[bytes]:
    for piece in _ask(root, keys):
        yield piece.tobytes()


def _ask(root: Root, keys: Sequence[str]) -> Iterator[array[int]]:
    """Yield the lengths of *keys*, some of them at a time."""
    compiled = extension()
    if compiled is None:
        yield from _ask_one_by_one(root, keys)
        return
    for first in range(0, len(keys), KEYS_AT_ONCE):
        some = keys[first : first + KEYS_AT_ONCE]
        found = array("q", compiled.lengths(root.descriptor, some))
        at = 0
        for length, run in groupby(found.tolist()):
            end = at + len(list(run))
            if length == compiled.ASK:
                found[at:end] = array("q", chain.from_iterable(_ask_one_by_one(root, some[at:end])))
            at = end
        yield found


def _ask_one_by_one(root: Root, keys: Sequence[str]) -> Iterator[array[int]]:
    """Do as `_ask`, without the extension."""
    found = array("q")
    shard, folder, at = "", None, -1
    for key, following in zip(keys, chain(islice(keys, 1, None), ("",)), strict=False):
        if not shard or not key.startswith(shard):
            shard = key[: key.find("/", key.find("/") + 1) + 1]
            if shard and following.startswith(shard):
                # The descriptor is open for as long as there is a reference to the folder.
                folder = _folder(root, shard, key)
                at = -1 if folder is None else folder.descriptor
            else:
                # Opening and closing a directory for one question costs two system calls more than it saves.
                shard, at = "", root.descriptor
        length = ABSENT
        if at >= 0:
            try:
                status = status_beneath(at, key[len(shard) :])
            except OSError as error:
                status = root.status_by_a_link(key, error)
            if status is not None:
                # st_mode and st_size by position: names of a named tuple cost more.
                length = status[6] if stat.S_ISREG(status[0]) else NO_FILE
        found.append(length)
        if len(found) == KEYS_AT_ONCE:
            yield found
            found = array("q")
    yield found


def _folder(root: Root, shard: str, key: str) -> Folder | None:
    try:
        return root.folder_if_there(shard[:-1])
    except OSError as error:
        raise OSError(error.errno, error.strerror, key) from error
