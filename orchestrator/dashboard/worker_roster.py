"""
The roster of workers, by the heartbeats that Celery's workers send anyway.

No worker is asked. To Celery an orchestrator is a worker, and is listed too.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any, Final, Self

from celery import Celery

from snapferry.stores.text.printable import printable

log = logging.getLogger(__name__)

# A worker is silent after this many missed heartbeats, and at least this many seconds.
MISSED: Final = 4
SILENT_S: Final = 10.0

# Seconds for which a worker that left or fell silent is listed.
REMEMBERED_S: Final = 3600.0

WORKERS_KEPT: Final = 1000

# No number of a heartbeat is larger.
_LARGEST: Final = 2**53

# Seconds before the next attempt to listen, after an outage of the broker.
RETRY_S: Final = 3.0

_LONGEST_TEXT: Final = 255


@dataclass(frozen=True)
class WorkerState:
    """
    A worker by its last heartbeat, *silent_s* seconds ago.

    *state*: online, silent or left. *active*: tasks that run; *processed*: tasks that have run; *load*: the load
    average of its machine in the last minute.
    """

    name: str
    state: str
    silent_s: float
    active: int
    processed: int
    load: float
    software: str


@dataclass
class _Entry:
    event: dict[str, Any]
    at: float
    left: bool


class WorkerRoster:
    """
    The workers of a fleet. Listens in a thread of its own while it is entered, through outages of the broker.

    All methods may be called from any thread.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._found: dict[str, _Entry] = {}
        self._receiver: Any = None
        self._since = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="worker-roster", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        if self._receiver is not None:
            self._receiver.should_stop = True
        # A broker that does not answer may keep the thread for longer.
        self._thread.join(1)

    def handle(self, event: dict[str, Any]) -> None:
        """Take an event of a worker; any other event is ignored."""
        name, kind = event.get("hostname"), event.get("type")
        if not isinstance(name, str) or not isinstance(kind, str) or not kind.startswith("worker-"):
            return
        now = time.monotonic()
        with self._lock:
            self._found[name] = _Entry(event, now, left=kind == "worker-offline")
            if len(self._found) > WORKERS_KEPT:
                del self._found[min(self._found, key=lambda name: self._found[name].at)]

    def workers(self) -> list[WorkerState]:
        """Return the workers that sent a heartbeat in the last hour, by name."""
        now = time.monotonic()
        with self._lock:
            for name in [name for name, entry in self._found.items() if now - entry.at > REMEMBERED_S]:
                del self._found[name]
            entries = sorted(self._found.items())
        return [_state(name, entry, now - entry.at) for name, entry in entries]

    @property
    def settled(self) -> bool:
        """Whether heartbeats have been received for so long that every node that runs has been heard of."""
        return self._since > 0 and time.monotonic() - self._since > SILENT_S

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    self._receiver = self._app.events.Receiver(
                        connection, handlers={"*": self.handle}, routing_key="worker.#"
                    )
                    self._receiver.should_stop = self._ended.is_set()
                    self._since = time.monotonic()
                    self._receiver.capture(wakeup=False)
            except Exception as error:  # noqa: BLE001 - the transport raises anything; the loop tries again
                log.debug("no heartbeats: %s", error)
            self._since = 0.0
            self._ended.wait(RETRY_S)


def _state(name: str, entry: _Entry, silent_s: float) -> WorkerState:
    event = entry.event
    patience = max(SILENT_S, MISSED * _number(event.get("freq")))
    state = "left" if entry.left else "silent" if silent_s > patience else "online"
    load = event.get("loadavg")
    return WorkerState(
        name=printable(name[:_LONGEST_TEXT]),
        state=state,
        silent_s=silent_s,
        active=int(_number(event.get("active"))) if state == "online" else 0,
        processed=int(_number(event.get("processed"))),
        load=_number(load[0]) if isinstance(load, list | tuple) and load else 0.0,
        software=printable(f"{event.get('sw_ident', '')} {event.get('sw_ver', '')}".strip()[:_LONGEST_TEXT]),
    )


def _number(found: object) -> float:
    """Return a number of an event, 0 for anything that is none or cannot be right: anybody can send events."""
    return float(found) if isinstance(found, int | float) and abs(found) < _LARGEST else 0.0
