"""
Shutdown: a worker that is told to stop takes no new task, and requeues in time what it cannot finish.

*grace*: running tasks have this many seconds. If all of them end sooner, the worker ends sooner.
*hopeless batches*: a batch of a single large object that, by its speed so far, will not end in time is requeued at
once.
*requeueing*: in the last third of the grace, at most `REQUEUE_S`, a running batch stops at its next piece and removes
its unfinished uploads; another worker starts it at once. A step of an orchestrator is interrupted wherever it is,
which is safe, and another orchestrator repeats it.
*stuck tasks*: what still runs `KILL_AFTER_S` after the grace is killed. Its lease ends, so that it is queued again
within seconds.
*bound*: `FORCE_S` after the grace the process ends, whatever hangs.

A second signal ends the grace. A third signal kills stuck tasks at once. The processes of the pool read the state of
the shutdown from two bytes of memory that they share with their parent.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import billiard
from celery import Celery, bootsteps, signals
from celery.worker import state

from snapferry.workers.messages import identify_batch
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

REQUEUE_S: Final = 10.0
KILL_AFTER_S: Final = 2.0
FORCE_S: Final = 2.7

# Processes ignore this signal by default, and neither Celery nor billiard uses it.
_WAKE: Final = signal.SIGURG

# The shared bytes: "requeue what runs", and "the worker shuts down". Behind them: when it will requeue what runs, by
# the monotonic clock, which all processes of a machine share; 0.0 while that is not known.
_REQUEUE, _SHUTS_DOWN = 0, 1
_DEADLINE: Final = struct.Struct("=d")
_DEADLINE_AT: Final = 8

# A SIGTERM for the whole process group may reach a process of the pool before its parent.
_GROUP_SIGNAL_S: Final = 1.0

_shared: mmap.mmap | None = None
_main_process = 0
_defers_sigterm = 0
_requested = False


class Interrupted(BaseException):
    """The process shuts down. Raised at any point of an `interruptible` block."""


def must_requeue() -> bool:
    """Return whether the tasks that run in this process must be requeued now."""
    return _shared is not None and _shared[_REQUEUE] == 1


def requeues_in_s() -> float | None:
    """Return in how many seconds the tasks that run in this process will be requeued, None if it does not shut down."""
    if _shared is None or _shared[_SHUTS_DOWN] == 0:
        return None
    (deadline,) = _DEADLINE.unpack_from(_shared, _DEADLINE_AT)
    return max(0.0, deadline - time.monotonic()) if deadline else None


def defer_sigterm() -> None:
    """
    Let this process of a pool ignore a SIGTERM that its parent received too: the process ends with its parent.

    A SIGTERM for this process alone still ends it. Call this when a task starts. Does nothing in other processes.
    """
    global _defers_sigterm
    process = os.getpid()
    if _shared is None or process in {_main_process, _defers_sigterm}:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: Any) -> None:
        deadline = time.monotonic() + _GROUP_SIGNAL_S
        while time.monotonic() < deadline:
            if _shared[_SHUTS_DOWN]:
                return
            time.sleep(0.02)
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)
    _defers_sigterm = process


def in_pool() -> bool:
    """Return whether this is a process of a worker's pool, which its parent replaces when it ends."""
    return _shared is not None and os.getpid() != _main_process


def end_stuck_process() -> None:
    """
    Kill this process, if it is in a worker's pool: a system call blocks it.

    Its parent starts a new process and requeues its message. In a pool of threads the thread stays blocked.
    """
    if in_pool():
        log.warning("process killed and replaced: a call that cannot be interrupted blocks it")
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        log.warning("thread blocked until its call returns: it cannot be interrupted")


def requested() -> bool:
    """Return whether this process, the main process of a worker, was told to stop."""
    return _requested


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Raise `Interrupted` inside the block when its work must be requeued.

    For work that may be killed at any moment. Works only in the main thread of a process, as in a pool of processes;
    elsewhere the block runs to its end, or until the process ends.
    """
    if _shared is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        if must_requeue():
            raise Interrupted

    defer_sigterm()
    before = signal.signal(_WAKE, interrupt)
    try:
        if must_requeue():
            raise Interrupted
        yield
    finally:
        signal.signal(_WAKE, before)


def attach(app: Celery, grace_s: float, revoke_lease: Callable[[str, str, str], None]) -> None:
    """
    Let workers of *app* shut down within *grace_s* seconds and `FORCE_S` more.

    *revoke_lease* is called from a thread with the job id, the batch's name and the worker of each batch whose process
    was killed. What it raises is logged.
    """
    seconds, revoke = grace_s, revoke_lease

    class Shutdown(_ShutdownStep):
        grace_s = seconds
        revoke_lease = staticmethod(revoke)

    app.steps["worker"].add(Shutdown)


class _ShutdownStep(bootsteps.StartStopStep):
    """A boot step of Celery's worker that starts before the pool, and replaces Celery's signal handlers."""

    # The pool starts after this step, so that its processes share the memory.
    name = "shutdown"
    requires = ()
    grace_s: float
    revoke_lease: Callable[[str, str, str], None]

    def __init__(self, worker: Any, **options: Any) -> None:
        global _shared, _main_process
        super().__init__(worker, **options)
        _shared, _main_process = mmap.mmap(-1, _DEADLINE_AT + _DEADLINE.size), os.getpid()
        self._worker = worker
        self._signals = 0
        # When tasks are told to requeue, the grace ends, stuck tasks are killed, and the process ends.
        self._requeue_at = self._grace_ends_at = self._kill_at = self._force_at = math.inf
        self._signal_reader, self._signal_writer = os.pipe()

    def start(self, parent: Any) -> None:
        threading.Thread(target=self._shut_down, name="shutdown", daemon=True).start()
        # Celery has just installed its own handlers; its second SIGINT would kill running tasks.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        signals.worker_shutdown.connect(self._ended, sender=self._worker, weak=False)

    def _on_signal(self, number: int, frame: object) -> None:
        # Runs between any two steps of the main thread, which may hold any lock. So the other thread does all that
        # needs a lock.
        global _requested
        now = time.monotonic()
        self._signals += 1
        _requested = True
        assert _shared is not None
        _shared[_SHUTS_DOWN] = 1
        ends_at = now if number == signal.SIGQUIT or self._signals > 1 else now + self.grace_s
        self._grace_ends_at = min(self._grace_ends_at, ends_at)
        requeue_s = min(REQUEUE_S, (self._grace_ends_at - now) / 3)
        self._requeue_at = min(self._requeue_at, self._grace_ends_at - requeue_s)
        _DEADLINE.pack_into(_shared, _DEADLINE_AT, self._requeue_at)
        self._kill_at = now if self._signals > 2 else self._grace_ends_at + KILL_AFTER_S
        self._force_at = self._grace_ends_at + FORCE_S
        if self._signals == 1:
            os.write(self._signal_writer, bytes([number]))
        state.should_stop = 0

    def _shut_down(self) -> None:
        name = signal.Signals(os.read(self._signal_reader, 1)[0]).name
        threading.Thread(target=self._force_end, name="force-shutdown", daemon=True).start()
        signals.worker_shutting_down.send(sender=self._worker.hostname, sig=name, how="Warm", exitcode=0)
        log.info(
            "shutdown on %s: no new tasks, running tasks have %g s",
            name,
            self.grace_s,
            extra=fields(running=len(state.active_requests)),
        )
        _sleep_until(lambda: self._requeue_at)
        assert _shared is not None
        _shared[_REQUEUE] = 1
        if state.active_requests:
            log.info("requeueing running tasks", extra=fields(running=len(state.active_requests)))
        for process in (os.getpid(), *(child.pid for child in billiard.active_children())):
            with suppress(ProcessLookupError):
                os.kill(process, _WAKE)
        _sleep_until(lambda: self._kill_at)
        self._kill_stuck_tasks()

    def _kill_stuck_tasks(self) -> None:
        """Kill the processes of a pool that still run a task, and end the leases of their batches."""
        requests = list(state.active_requests)
        children = billiard.active_children()
        if not requests:
            return
        log.warning("stuck tasks killed", extra=fields(running=len(requests)))
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        for request in requests:
            job, name = identify_batch(request.args[0] if request.args else None)
            if not job or not name:
                continue
            try:
                self.revoke_lease(job, name, self._worker.hostname)
            except Exception as error:  # noqa: BLE001 - the lease expires by itself
                log.warning("cannot end the lease of a batch: %s", error, extra=fields(job=job, batch=name))

    def _force_end(self) -> None:
        _sleep_until(lambda: self._force_at)
        log.warning("shutdown forced: a task or thread hangs")
        sys.stderr.flush()
        # Ends the processes of the pool as well: Celery lets the system kill them with their parent.
        os._exit(0)

    def _ended(self, **_: Any) -> None:
        log.info("shutdown complete")


def _sleep_until(moment: Callable[[], float]) -> None:
    """Sleep until *moment*, which may become earlier meanwhile."""
    while (left := moment() - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
