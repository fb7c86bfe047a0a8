"""
How long many files are: asked by this process, or by one for each core.

A question of a file system that is in memory takes some microseconds of the
kernel's time, so many keys are shared among processes.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final

from snapferry.stores.bulk.forked import Forked, worth
from snapferry.stores.runtime.interruption import checkpoint

from .paths.beneath import status_beneath
from .paths.root import Folder, Root

ABSENT: Final = -1
NO_FILE: Final = -2

# A process is worth its fork from about so many keys on.
KEYS_FOR_A_PROCESS: Final = 10_000

# So many keys, and then a checkpoint.
KEYS_AT_ONCE: Final = 1000


def lengths(root: Root, keys: Sequence[str]) -> array[int]:
    """
    Return the length in bytes of each of *keys* below *root*, `ABSENT`, or `NO_FILE`.

    Where a top-level shard is absent, one question answers for all of its keys
    that follow each other. Raises OSError with the key as its filename.
    """
    each = -(-len(keys) // worth(len(keys), KEYS_FOR_A_PROCESS)) or 1
    parts = [keys[at : at + each] for at in range(0, len(keys), each)]
    with ExitStack() as stack:
        others = [stack.enter_context(closing(Forked(partial(_say, root, part)))) for part in parts[1:]]
        found = array("q")
        for piece in _ask(root, parts[0] if parts else ()):
            checkpoint()
            found += piece
        for part, other in zip(parts[1:], others, strict=True):
            said = other.rest()
            if said is None:
                # This process asks again, and raises what there is.
                for piece in _ask(root, part):
                    checkpoint()
                    found += piece
            else:
                found.frombytes(said)
    return found


def _say(root: Root, keys: Sequence[str]) -> Iterator[bytes]:
    for piece in _ask(root, keys):
        yield piece.tobytes()


def _ask(root: Root, keys: Sequence[str]) -> Iterator[array[int]]:
    """Yield the lengths of *keys*, some of them at a time."""
    found = array("q")
    shard, folder = "", None
    for key in keys:
        if not shard or not key.startswith(shard):
            shard = key[: key.find("/", key.find("/") + 1) + 1]
            folder = _folder(root, shard, key)
        length = ABSENT
        if folder is not None:
            try:
                status = status_beneath(folder.descriptor, key[len(shard) :])
            except OSError as error:
                status = root.status_by_a_link(key, error)
            if status is not None:
                # By position, as a named tuple's names cost more: st_mode and st_size.
                length = status[6] if stat.S_ISREG(status[0]) else NO_FILE
        found.append(length)
        if len(found) == KEYS_AT_ONCE:
            yield found
            found = array("q")
    yield found


def _folder(root: Root, shard: str, key: str) -> Folder | None:
    try:
        return root.folder_if_there(shard[:-1] if shard else ".")
    except OSError as error:
        raise OSError(error.errno, error.strerror, key) from error
