"""
The workers and orchestrators of a fleet: which there are, and what a job lacks.

Workers announce themselves in Redis. To Celery an orchestrator is a worker too, so heartbeats alone do not tell them
apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.queues import copy_queue
from snapferry.workers.reachability.worker_roster import ROSTER_S, RegisteredWorker

Role = Literal["worker", "orchestrator"]


class Presence(StrEnum):
    """Whether a node is there. UNKNOWN: it has not announced itself, and no heartbeat of it has been received."""

    ONLINE = "online"
    SILENT = "silent"
    LEFT = "left"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Node:
    """
    A worker or an orchestrator.

    It was last heard of *silent_s* seconds ago, None if never. A worker serves *queues*.
    """

    name: str
    role: Role
    presence: Presence
    silent_s: float | None = None
    queues: tuple[str, ...] = ()

    @property
    def online(self) -> bool:
        """Whether it is there."""
        return self.presence is Presence.ONLINE


def nodes(
    registered: Iterable[RegisteredWorker],
    heard: Mapping[str, tuple[Presence, float]],
    at_work: Collection[str] = (),
) -> list[Node]:
    """
    Return all nodes by name.

    *registered* workers announced themselves. *heard*: name -> what heartbeats tell, and seconds since the last one.
    Workers *at_work* have batches.
    """
    announced = {worker.name: worker for worker in registered}
    found = []
    for name in sorted(announced.keys() | heard.keys() | set(at_work)):
        worker = announced.get(name)
        is_worker = worker is not None or name in at_work or name.startswith("worker@")
        presence, silent_s = heard.get(name, (Presence.UNKNOWN, None))
        if worker is not None and presence is Presence.UNKNOWN:
            presence = Presence.ONLINE if worker.silent_s <= ROSTER_S else Presence.SILENT
            silent_s = worker.silent_s
        if (
            worker is not None
            and presence is Presence.SILENT
            and worker.silent_s > FORGET_S
            and name not in at_work
        ):
            continue
        queues = worker.queues if worker is not None else ()
        found.append(Node(name, "worker" if is_worker else "orchestrator", presence, silent_s, queues))
    return found


# Seconds for which a worker that is gone is listed.
FORGET_S: Final = 3600.0


def lacking(status: JobStatus, fleet: Sequence[Node], *, heartbeats: bool) -> Role | None:
    """
    Return the role of which no process runs that could take the next step of a job, None if there is one.

    *heartbeats*: they have been received for long enough that an orchestrator would have been heard.
    """
    if status.state.final or status.cancelling:
        return None
    orchestrators = [node for node in fleet if node.role == "orchestrator" and node.online]
    # When all queued batches are done, an orchestrator queues the next ones, or publishes.
    if status.state is not State.COPYING or status.batches_done >= status.batches_handed > 0:
        return "orchestrator" if heartbeats and not orchestrators else None
    queue = copy_queue(status.queue)
    if not status.workers and not any(node.online and queue in node.queues for node in fleet):
        return "worker"
    return None
