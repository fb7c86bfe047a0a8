"""
The workers and orchestrators of a fleet: which there are, and what a job lacks.

Both announce themselves in Redis, each role in a roster of its own. To Celery an orchestrator is a worker too, so
heartbeats alone do not tell them apart. Orchestrators of earlier versions do not announce themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final, Literal

from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.ledger.keys import ROSTER_S
from snapferry.workers.lifecycle.orchestrator_roster import SILENT_S
from snapferry.workers.queues import copy_queue
from snapferry.workers.reachability.worker_roster import RegisteredWorker

Role = Literal["worker", "orchestrator"]

# The role of which no process runs that could take the next step of a job. "": each role has one. None: unknown.
Lack = Role | Literal[""] | None


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

    It was last heard of *silent_s* seconds ago, None if never. A worker serves *queues*. One that *plans* is an
    orchestrator as well, as in a fleet of one process.
    """

    name: str
    role: Role
    presence: Presence
    silent_s: float | None = None
    queues: tuple[str, ...] = ()
    plans: bool = False

    @property
    def online(self) -> bool:
        """Whether it is there."""
        return self.presence is Presence.ONLINE


@dataclass(frozen=True)
class Announced:
    """
    The nodes that announced themselves in the last week: *workers*, and *orchestrators* with the seconds since then.

    *complete*: an orchestrator that has not announced itself does not run. It is false while orchestrators of an
    earlier version may run, which do not announce themselves.
    """

    workers: Sequence[RegisteredWorker] = ()
    orchestrators: Mapping[str, float] = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True)
class Fleet:
    """The *nodes* of a fleet. *complete*: every orchestrator that runs is among them."""

    nodes: Sequence[Node] = ()
    complete: bool = False

    def online(self, role: Role) -> list[Node]:
        """Return the nodes in *role* that are there."""
        return [
            node
            for node in self.nodes
            if node.online and (node.role == role or (node.plans and role == "orchestrator"))
        ]

    @property
    def headless(self) -> bool:
        """Whether it is certain that no orchestrator runs."""
        return self.complete and not self.online("orchestrator")


def nodes(
    announced: Announced,
    heard: Mapping[str, tuple[Presence, float]],
    at_work: Collection[str] = (),
) -> list[Node]:
    """
    Return all nodes by name: those that *announced* themselves, those that were *heard* of, and workers *at_work*.

    *heard*: name -> what heartbeats tell, and seconds since the last one. Workers *at_work* have batches.
    """
    workers = {worker.name: worker for worker in announced.workers}
    found = []
    for name in sorted(workers.keys() | announced.orchestrators.keys() | heard.keys() | set(at_work)):
        worker = workers.get(name)
        is_worker = worker is not None or name in at_work or name.startswith("worker@")
        presence, silent_s = heard.get(name, (Presence.UNKNOWN, None))
        last_s = worker.silent_s if worker is not None else announced.orchestrators.get(name)
        if last_s is not None and presence is Presence.UNKNOWN:
            longest_s = ROSTER_S if worker is not None else SILENT_S
            presence = Presence.ONLINE if last_s <= longest_s else Presence.SILENT
            silent_s = last_s
        if last_s is not None and presence is Presence.SILENT and last_s > FORGET_S and name not in at_work:
            continue
        queues = worker.queues if worker is not None else ()
        plans = announced.orchestrators.get(name, inf) <= SILENT_S
        found.append(Node(name, "worker" if is_worker else "orchestrator", presence, silent_s, queues, plans))
    return found


# Seconds for which a node that is gone is listed.
FORGET_S: Final = 3600.0


def lacking(status: JobStatus, fleet: Fleet) -> Role | None:
    """Return the role of which no process runs that could take the next step of a job, None if there may be one."""
    if status.state.final or status.cancelling:
        return None
    # When all queued batches are done, an orchestrator queues the next ones, or publishes.
    if status.state is not State.COPYING or status.batches_done >= status.batches_handed > 0:
        return "orchestrator" if fleet.headless else None
    queue = copy_queue(status.queue)
    if not status.workers and not any(node.online and queue in node.queues for node in fleet.nodes):
        return "worker"
    return None
