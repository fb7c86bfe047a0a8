"""
Work that is shared among the cores of this machine, by processes that live for their part of it.

Threads of one interpreter would pass its lock on at each step. Each process is
forked from one that may have threads, so it computes, asks the kernel, writes
to its pipe and is gone: nothing that it does waits for a lock.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

MOST_PROCESSES: Final = 16

_READ_BYTES: Final = 1 << 20

# So much may wait in a pipe while the reader is busy with a part of its own.
_PIPE_BYTES: Final = 1 << 20

# Behind all that a process says stands how many bytes that was.
_COUNT_BYTES: Final = 8

# Of which a process of Celery's, or a command, does something of its own.
_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

Work = Callable[[], Iterable[bytes]]

# The ends at which this process listens. While one is open in any process, the other end waits for a reader.
_listening: set[int] = set()


def worth(units: int, each: int) -> int:
    """Return among how many processes *units* of work are to be shared, if one is worth its fork for *each* of them."""
    return max(1, min(_cores(), MOST_PROCESSES, units // each))


def _cores() -> int:
    # Elsewhere than on Linux, what a fork may do in a process with threads is less certain.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class Forked:
    """
    A process that does *work*, and says in one row of bytes, of *unit* each, what that yields.

    To be closed, which ends it. Where there is no room for another process it is one that said nothing.
    """

    def __init__(self, work: Work, unit: int = 1) -> None:
        self._unit = unit
        self._said = bytearray()
        self._handed = 0
        self._pipe, pipe = os.pipe()
        _listening.add(self._pipe)
        with suppress(OSError, AttributeError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # Until it has put off what this process does on a signal, the new one must get none.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process = _fork()
            if self._process == 0:
                _work_and_exit(work, pipe, before)
        except OSError:
            self._process = -1
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(pipe)

    def some(self) -> bytearray:
        """Return what it said since the last time, in whole units, without waiting for it."""
        self._listen(wait=False)
        return self._hand_over(max(0, len(self._said) - _COUNT_BYTES) // self._unit * self._unit)

    def rest(self) -> bytearray | None:
        """Wait for its end, and return what it said since the last time; None unless it came to the end of its work."""
        self._listen(wait=True)
        count = int.from_bytes(self._said[-_COUNT_BYTES:], "little")
        found = self._hand_over(max(0, len(self._said) - _COUNT_BYTES))
        return found if len(self._said) == _COUNT_BYTES and count == self._handed else None

    def close(self) -> None:
        """Let go of the process: without a reader it ends, if it has not yet."""
        _listening.discard(self._pipe)
        os.close(self._pipe)
        if self._process > 0:
            with suppress(ChildProcessError):
                os.waitpid(self._process, 0)

    def _listen(self, *, wait: bool) -> None:
        os.set_blocking(self._pipe, wait)
        with suppress(BlockingIOError):
            while piece := os.read(self._pipe, _READ_BYTES):
                self._said += piece

    def _hand_over(self, length: int) -> bytearray:
        found = self._said[:length]
        del self._said[:length]
        self._handed += length
        return found


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads, from Python 3.12 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _work_and_exit(work: Work, pipe: int, mask: set[int]) -> None:
    try:
        gc.disable()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for listening in _listening:
            os.close(listening)
        count = 0
        for piece in work():
            count += len(piece)
            _write(pipe, piece)
        _write(pipe, count.to_bytes(_COUNT_BYTES, "little"))
    finally:
        os._exit(0)


def _write(pipe: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(pipe, left) :]
