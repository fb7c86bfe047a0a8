"""
How long many files are: asked by this process, or by one for each core.

A question of a file system that is in memory takes some microseconds of the
kernel's time, so many keys are shared among processes.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final

from ..forked import Forked, worth

ABSENT: Final = -1
NO_FILE: Final = -2

# A process is worth its fork from about so many keys on.
KEYS_FOR_A_PROCESS: Final = 10_000


def lengths(root: int, keys: Sequence[str]) -> array[int]:
    """
    Return the length in bytes of each of *keys* below the open directory *root*, `ABSENT`, or `NO_FILE`.

    Where a top-level shard is absent, one question answers for all of its keys
    that follow each other. Raises OSError with the key as its filename.
    """
    each = -(-len(keys) // worth(len(keys), KEYS_FOR_A_PROCESS)) or 1
    parts = [keys[at : at + each] for at in range(0, len(keys), each)]
    with ExitStack() as stack:
        others = [stack.enter_context(closing(Forked(partial(_say, root, part)))) for part in parts[1:]]
        found = _ask(root, parts[0] if parts else ())
        for part, other in zip(parts[1:], others, strict=True):
            said = other.rest()
            if said is None:
                # This process asks again, and raises what there is.
                found += _ask(root, part)
            else:
                found.frombytes(said)
    return found


def _say(root: int, keys: Sequence[str]) -> list[bytes]:
    return [_ask(root, keys).tobytes()]


def _ask(root: int, keys: Sequence[str]) -> array[int]:
    found = array("q")
    shard, exists = "", False
    for key in keys:
        if not shard or not key.startswith(shard):
            shard = key[: key.find("/", key.find("/") + 1) + 1]
            exists = _is_there(root, shard)
        length = ABSENT
        if exists:
            try:
                # By position, as a named tuple's names cost more: st_mode and st_size.
                known = os.stat(key, dir_fd=root)
            except FileNotFoundError:
                pass
            else:
                length = known[6] if stat.S_ISREG(known[0]) else NO_FILE
        found.append(length)
    return found


def _is_there(root: int, folder: str) -> bool:
    try:
        os.stat(folder, dir_fd=root)
    except FileNotFoundError:
        return False
    return True
