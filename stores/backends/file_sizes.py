"""
How long many files are: asked by this process, or by one for each core.

A question of a file system that is in memory takes some microseconds of the
kernel's time, and threads of one interpreter would pass its lock on at each. So
many keys are shared among processes that live for their part of the question.
"""

from __future__ import annotations

import gc
import os
import signal
import stat
import warnings
from array import array
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from typing import Final

ABSENT: Final = -1
NO_FILE: Final = -2

# A process is worth its fork from about so many keys on.
KEYS_FOR_A_PROCESS: Final = 10_000
MOST_PROCESSES: Final = 16

_ITEM: Final = array("q").itemsize
_READ_BYTES: Final = 1 << 20

# Of which a process of Celery's, or a command, does something of its own.
_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def lengths(root: int, keys: Sequence[str]) -> array[int]:
    """
    Return the length in bytes of each of *keys* below the open directory *root*, `ABSENT`, or `NO_FILE`.

    Where a top-level shard is absent, one question answers for all of its keys
    that follow each other. Raises OSError with the key as its filename.
    """
    processes = min(_cores(), MOST_PROCESSES, len(keys) // KEYS_FOR_A_PROCESS)
    if processes < 2:
        return _ask(root, keys)
    each = -(-len(keys) // processes)
    parts = [keys[at : at + each] for at in range(0, len(keys), each)]
    with ExitStack() as stack:
        others = [stack.enter_context(closing(_Other(root, part))) for part in parts[1:]]
        found = _ask(root, parts[0])
        for other in others:
            found += other.answer()
    return found


def _cores() -> int:
    # Elsewhere than on Linux, what a fork may do in a process with threads is less certain.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


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


class _Other:
    """
    A process that asks for *keys*.

    It is forked from a process that may have threads, so it asks the kernel, writes to its pipe and is gone: nothing
    that it does waits for a lock.
    """

    def __init__(self, root: int, keys: Sequence[str]) -> None:
        self._root = root
        self._keys = keys
        self._answer, answer = os.pipe()
        # Until it has put off what this process does on a signal, the new one must get none.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = _fork()
            if self._process == 0:
                _ask_and_exit(root, keys, answer, before)
        except OSError:
            # No room for another process: this one asks for all.
            self._process = -1
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(answer)

    def answer(self) -> array[int]:
        """Return what it found. Where it failed or was killed, this process asks again, and raises what there is."""
        found, said = array("q"), bytearray()
        while piece := os.read(self._answer, _READ_BYTES):
            said += piece
        if len(said) != _ITEM * len(self._keys):
            return _ask(self._root, self._keys)
        found.frombytes(bytes(said))
        return found

    def close(self) -> None:
        """Let go of the process: without a reader it ends, if it has not yet."""
        os.close(self._answer)
        if self._process > 0:
            with suppress(ChildProcessError):
                os.waitpid(self._process, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads, from Python 3.12 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _ask_and_exit(root: int, keys: Sequence[str], answer: int, mask: set[int]) -> None:
    try:
        gc.disable()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        said = memoryview(_ask(root, keys).tobytes())
        while said:
            said = said[os.write(answer, said) :]
    finally:
        os._exit(0)
