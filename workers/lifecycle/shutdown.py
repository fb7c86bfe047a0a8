"""
Leaving: a worker that is told to stop takes nothing new, and gives back in time what it does not finish.

*the grace*: what runs has so many seconds. If all of it ends sooner, the worker
leaves sooner.
*giving back*: the last third of the grace, at most `TIDY_S`, is for a running
batch to stop at its next piece and remove what it had half written; another
worker begins it at once. A step of an orchestrator is broken off wherever it is,
which is safe, and another one does it.
*stragglers*: what hangs is killed `STRAGGLE_S` after the grace. Its lease is over
then, so that it is handed out again within seconds.
*the bound*: `FORCE_S` after the grace the process is gone, whatever hangs.

A second signal ends the grace, a third one the patience with stragglers. The
processes of the pool are told by two bytes of memory that they share with their parent.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import billiard
from celery import Celery, bootsteps, signals
from celery.worker import state

from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

TIDY_S: Final = 10.0
STRAGGLE_S: Final = 2.0
FORCE_S: Final = 2.7

# Ignored by a process that does not expect it, and not used by Celery or billiard.
_KICK: Final = signal.SIGURG

# What the main process tells those of its pool: one byte each.
_GIVE_BACK, _LEAVING = 0, 1

# SIGTERM may reach a process of the pool before its parent, when it is sent to all.
_TOGETHER_S: Final = 1.0

_shared: mmap.mmap | None = None
_main_process = 0
_outlasts = 0
_asked = False


class Interrupted(BaseException):
    """The process is leaving. Raised in an `interruptible` block, wherever it is."""


def due() -> bool:
    """Say whether what runs in this process is to be given back now."""
    return _shared is not None and _shared[_GIVE_BACK] == 1


def outlast_sigterm() -> None:
    """
    Let this process of a pool pass over a SIGTERM that its parent got as well: it ends with its parent.

    One for it alone ends it, as before. To be called when it begins something; does nothing elsewhere.
    """
    global _outlasts
    process = os.getpid()
    if _shared is None or process in {_main_process, _outlasts}:
        return
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: Any) -> None:
        deadline = time.monotonic() + _TOGETHER_S
        while time.monotonic() < deadline:
            if _shared is not None and _shared[_LEAVING]:  # type: ignore[redundant-expr]
                return
            time.sleep(0.02)
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)
    _outlasts = process


def in_pool() -> bool:
    """Say whether this is a process of a worker's pool, which its parent replaces when it ends."""
    return _shared is not None and os.getpid() != _main_process


def end_stuck_process() -> None:
    """
    Kill this process if it is one of a worker's pool: a call into the kernel blocks it.

    Its parent starts another one and requeues its message. A thread of a pool of threads stays blocked.
    """
    if in_pool():
        log.warning("process killed and replaced: a call that cannot be interrupted blocks it")
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        log.warning("thread blocked until its call returns: it cannot be interrupted")


def asked() -> bool:
    """Say whether this process, a worker's main one, was told to stop."""
    return _asked


@contextmanager
def interruptible() -> Iterator[None]:
    """
    Let the block be broken off by `Interrupted` when it is to be given back.

    For work that is safe to kill at any moment. Only in a process's main thread, as in a pool of processes;
    elsewhere the block runs to its end, or until the process is gone.
    """
    if _shared is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        if due():
            raise Interrupted

    outlast_sigterm()
    before = signal.signal(_KICK, interrupt)
    try:
        if due():
            raise Interrupted
        yield
    finally:
        signal.signal(_KICK, before)


def attach(app: Celery, grace: float, void: Callable[[str, str, str], None]) -> None:
    """
    Let workers of *app* leave within *grace* seconds and `FORCE_S` more.

    *void* is told the job, the name and the worker of each batch whose process was killed, from a thread; what it
    raises is logged.
    """

    class Leaving(_Leaving):
        grace_s = grace
        void_lease = staticmethod(void)

    app.steps["worker"].add(Leaving)


class _Leaving(bootsteps.StartStopStep):
    """A part of Celery's worker, started before its pool is: takes the place of its handlers of signals."""

    # Celery makes the pool's processes when it comes to this step, and they must share the byte.
    name = "leaving"
    requires = ()
    grace_s: float
    void_lease: Callable[[str, str, str], None]

    def __init__(self, worker: Any, **options: Any) -> None:
        global _shared, _main_process
        super().__init__(worker, **options)
        _shared, _main_process = mmap.mmap(-1, 2), os.getpid()
        self._worker = worker
        self._asked = 0
        # Moments: what runs is told, the grace ends, stragglers are killed, the process is gone.
        self._tells = self._ends = self._kills = self._forces = math.inf
        self._told, self._tell = os.pipe()

    def start(self, parent: Any) -> None:
        threading.Thread(target=self._leave, name="leaving", daemon=True).start()
        # Celery installed its own just before. Its second SIGINT would kill what runs.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        signals.worker_shutdown.connect(self._left, sender=self._worker, weak=False)

    def _on_signal(self, number: int, frame: object) -> None:
        # Runs between any two steps of the main thread, which may hold any lock: all that takes one is the thread's.
        global _asked
        now = time.monotonic()
        self._asked += 1
        _asked = True
        assert _shared is not None
        _shared[_LEAVING] = 1
        ends = now if number == signal.SIGQUIT or self._asked > 1 else now + self.grace_s
        self._ends = min(self._ends, ends)
        self._tells = min(self._tells, self._ends - min(TIDY_S, (self._ends - now) / 3))
        self._kills = now if self._asked > 2 else self._ends + STRAGGLE_S
        self._forces = self._ends + FORCE_S
        if self._asked == 1:
            os.write(self._tell, bytes([number]))
        state.should_stop = 0

    def _leave(self) -> None:
        name = signal.Signals(os.read(self._told, 1)[0]).name
        threading.Thread(target=self._force_out, name="force-out", daemon=True).start()
        signals.worker_shutting_down.send(sender=self._worker.hostname, sig=name, how="Warm", exitcode=0)
        log.info(
            "leaving on %s: nothing new is taken, what runs has %g s",
            name,
            self.grace_s,
            extra=fields(running=len(state.active_requests)),
        )
        _sleep_until(lambda: self._tells)
        assert _shared is not None
        _shared[_GIVE_BACK] = 1
        if state.active_requests:
            log.info("giving back what runs", extra=fields(running=len(state.active_requests)))
        for process in (os.getpid(), *(child.pid for child in billiard.active_children())):
            with suppress(ProcessLookupError):
                os.kill(process, _KICK)
        _sleep_until(lambda: self._kills)
        self._end_stragglers()

    def _end_stragglers(self) -> None:
        """Kill the processes of a pool that still work; let the leases of their batches be over."""
        left = list(state.active_requests)
        children = billiard.active_children()
        if not left:
            return
        log.warning("what does not stop is killed, and handed out again", extra=fields(running=len(left)))
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        for request in left:
            message = request.args[0] if request.args else None
            if isinstance(message, dict):
                job, name = (
                    str(message.get("job_id", "")),
                    f"{message.get('series', '')}:{message.get('number', '')}",
                )
                try:
                    self.void_lease(job, name, self._worker.hostname)
                except Exception as error:  # noqa: BLE001 - the lease runs out by itself
                    log.warning(
                        "cannot end the lease of a batch: %s", error, extra=fields(job=job, batch=name)
                    )

    def _force_out(self) -> None:
        _sleep_until(lambda: self._forces)
        log.warning("left by force: something hung")
        sys.stderr.flush()
        # Ends the processes of the pool as well: Celery lets the system kill them with their parent.
        os._exit(0)

    def _left(self, **_: Any) -> None:
        log.info("left")


def _sleep_until(moment: Callable[[], float]) -> None:
    """Sleep until a moment that may come to be an earlier one."""
    while (left := moment() - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
