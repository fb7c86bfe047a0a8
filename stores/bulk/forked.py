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
import select
import signal
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from typing import Final

from snapferry.stores.runtime.interruption import checkpoint

MOST_PROCESSES: Final = 16

_READ_BYTES: Final = 1 << 20

# What is taken of a pipe at once: bounds what waits in the memory of the reader.
_MOST_BYTES: Final = 4 << 20

# How long the reader waits between two checkpoints.
_WAIT_S: Final = 1.0

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
        self._ended = False
        self._pipe, pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
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
        """Return some of what it said since the last time, in whole units, without waiting for it."""
        self._listen()
        return self._hand_over(max(0, len(self._said) - _COUNT_BYTES) // self._unit * self._unit)

    def ends(self) -> bool:
        """Wait a moment for more of what it says; return whether that was all, so that `rest` does not wait."""
        checkpoint()
        if not self._ended and self._poll.poll(_WAIT_S * 1000):
            self._listen()
        return self._ended

    def rest(self) -> bytearray | None:
        """Wait for its end, and return what it said since the last time; None unless it came to the end of its work."""
        while not self.ends():
            pass
        count = int.from_bytes(self._said[-_COUNT_BYTES:], "little")
        found = self._hand_over(max(0, len(self._said) - _COUNT_BYTES))
        return found if len(self._said) == _COUNT_BYTES and count == self._handed else None

    def close(self) -> None:
        """End the process, if it has not ended yet. It holds nothing that would be left behind."""
        _listening.discard(self._pipe)
        os.close(self._pipe)
        if self._process > 0:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._process, 0)

    def _listen(self) -> None:
        """Take what is there, at most `_MOST_BYTES` of it."""
        with suppress(BlockingIOError):
            for _ in range(_MOST_BYTES // _READ_BYTES):
                piece = os.read(self._pipe, _READ_BYTES)
                if not piece:
                    self._ended = True
                    return
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
        # Without the parent's context: its checkpoints use connections that this process must not touch.
        Context().run(_work, work, pipe)
    finally:
        os._exit(0)


def _work(work: Work, pipe: int) -> None:
    count = 0
    for piece in work():
        count += len(piece)
        _write(pipe, piece)
    _write(pipe, count.to_bytes(_COUNT_BYTES, "little"))


def _write(pipe: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(pipe, left) :]
