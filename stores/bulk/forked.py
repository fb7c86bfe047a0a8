"""
Share work among the cores of this machine: each child process does a part of it and exits.

Threads of one interpreter would wait for its lock at each step. A child is forked from a process that may have threads,
so it must not wait for a lock: it computes, calls the kernel, writes to its pipe and exits.
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

# The most bytes that are read from a pipe at once: bounds the memory of the reader.
_MOST_BYTES: Final = 4 << 20

# Seconds that the reader waits between two checkpoints.
_WAIT_S: Final = 1.0

# Size of a pipe: bytes that wait in it while the reader is busy with a part of its own.
_PIPE_BYTES: Final = 1 << 20

# A child ends its output with its length in bytes, as a number of this many bytes.
_COUNT_BYTES: Final = 8

# Signals for which a process of Celery or a command has handlers of its own.
_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

Work = Callable[[], Iterable[bytes]]

# The read ends of this process. While one is open in any process, a writer at the other end does not fail.
_listening: set[int] = set()


def worth(units: int, each: int) -> int:
    """Return how many processes should share *units* of work, if a fork is worth its cost for *each* units."""
    return max(1, min(_cores(), MOST_PROCESSES, units // each))


def _cores() -> int:
    # On systems other than Linux, it is less certain what a fork may do in a process with threads.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class Forked:
    """
    A child process that does *work* and sends what it yields: bytes, in units of *unit* bytes.

    Close it, which ends the process. If the fork fails, it behaves like a child that sent nothing.
    """

    def __init__(self, work: Work, unit: int = 1) -> None:
        self._unit = unit
        self._received = bytearray()
        self._handed = 0
        self._ended = False
        self._pipe, pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        _listening.add(self._pipe)
        with suppress(OSError, AttributeError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # The child must get no signal until it has removed the handlers of this process.
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
        """Return whole units that the child sent since the last call, without waiting."""
        self._listen()
        return self._hand_over(max(0, len(self._received) - _COUNT_BYTES) // self._unit * self._unit)

    def ends(self) -> bool:
        """Wait a moment for more output; return whether the child has ended, so that `rest` does not wait."""
        checkpoint()
        if not self._ended and self._poll.poll(_WAIT_S * 1000):
            self._listen()
        return self._ended

    def rest(self) -> bytearray | None:
        """Wait for the end; return what the child sent since the last call, None unless it finished its work."""
        while not self.ends():
            pass
        count = int.from_bytes(self._received[-_COUNT_BYTES:], "little")
        found = self._hand_over(max(0, len(self._received) - _COUNT_BYTES))
        return found if len(self._received) == _COUNT_BYTES and count == self._handed else None

    def close(self) -> None:
        """End the child if it has not ended yet. It leaves nothing behind."""
        _listening.discard(self._pipe)
        os.close(self._pipe)
        if self._process > 0:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._process, 0)

    def _listen(self) -> None:
        """Read what the pipe holds, at most `_MOST_BYTES`."""
        with suppress(BlockingIOError):
            for _ in range(_MOST_BYTES // _READ_BYTES):
                piece = os.read(self._pipe, _READ_BYTES)
                if not piece:
                    self._ended = True
                    return
                self._received += piece

    def _hand_over(self, length: int) -> bytearray:
        found = self._received[:length]
        del self._received[:length]
        self._handed += length
        return found


def _fork() -> int:
    with warnings.catch_warnings():
        # From Python 3.12 on it warns about threads.
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
        # Not in the parent's context: its checkpoints use connections that the child must not touch.
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
