"""The lists of workers and orchestrators."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from snapferry.orchestrator.dashboard.worker_roster import WorkerState
from snapferry.orchestrator.reporting.nodes import Fleet, Node, Presence, nodes
from snapferry.workers.ledger import RunningBatch
from snapferry.workers.queues import COPY_QUEUE, is_parking_queue

from .sources import LIVELY_S, Sources

# Jobs, and queues, of a worker that are listed.
JOBS_LISTED: Final = 20
QUEUES_LISTED: Final = 10

TONES: Final = {
    Presence.ONLINE: "good",
    Presence.SILENT: "bad",
    Presence.LEFT: "off",
    Presence.UNKNOWN: "hold",
}


@dataclass(frozen=True)
class WorkerLine:
    """
    A worker or orchestrator in a list; *heartbeat* is None before the dashboard has received one.

    *batches* is the number of batches that it runs. *queues* are those of ``--queue`` that it serves. *jobs* has pairs
    of job id and page; *more* is the number of jobs that are left out.
    """

    node: Node
    tone: str
    heartbeat: WorkerState | None
    batches: int
    queues: tuple[str, ...]
    jobs: tuple[tuple[str, str], ...]
    more: int
    href: str


def workers_page(sources: Sources) -> dict[str, Any]:
    """Return the values of the lists of workers and orchestrators."""
    running = sources.jobs.running()
    fleet = fleet_of(sources, {batch.worker for batch in running})
    lines = worker_lines(fleet.nodes, sources.roster.workers(), running, sources.flower)
    return {
        "workers": [line for line in lines if line.node.role == "worker"],
        "orchestrators": [line for line in lines if line.node.role == "orchestrator"],
        "complete": fleet.complete,
        "refresh_s": LIVELY_S,
    }


def fleet_of(sources: Sources, at_work: Collection[str] = ()) -> Fleet:
    """Return the fleet, with the workers *at_work*."""
    heard = {each.name: (Presence(each.state), each.silent_s) for each in sources.roster.workers()}
    announced = sources.jobs.announced()
    # Heartbeats tell of orchestrators of any version, once they have been received for a while.
    return Fleet(nodes(announced, heard, at_work), announced.complete or sources.roster.settled)


def worker_lines(
    fleet: Iterable[Node],
    roster: Sequence[WorkerState],
    running: Iterable[RunningBatch],
    flower: str,
    *,
    most: int | None = None,
) -> list[WorkerLine]:
    """Return at most *most* nodes of *fleet*, the busiest first; *running* are the batches of workers."""
    batches_of: dict[str, dict[str, int]] = {}
    for batch in running:
        jobs = batches_of.setdefault(batch.worker, {})
        jobs[batch.job_id] = jobs.get(batch.job_id, 0) + 1
    known = {worker.name: worker for worker in roster}

    def batches(node: Node) -> int:
        return sum(batches_of.get(node.name, {}).values())

    lines = []
    for node in sorted(fleet, key=lambda node: (not node.online, -batches(node), node.name))[:most]:
        jobs = batches_of.get(node.name, {})
        lines.append(
            WorkerLine(
                node=node,
                tone=TONES[node.presence],
                heartbeat=known.get(node.name),
                batches=batches(node),
                queues=queue_names(node.queues)[:QUEUES_LISTED],
                jobs=tuple((job_id, f"/jobs/{quote(job_id)}") for job_id in list(jobs)[:JOBS_LISTED]),
                more=max(0, len(jobs) - JOBS_LISTED),
                href=f"{flower}/worker/{quote(node.name, safe='@', errors='replace')}"
                if flower and node.name in known
                else "",
            )
        )
    return lines


def queue_names(queues: Iterable[str]) -> tuple[str, ...]:
    """Return queues of batches by their names of ``--queue``, "default" for the default one, without parking queues."""
    return tuple(
        queue.removeprefix(f"{COPY_QUEUE}.") if queue != COPY_QUEUE else "default"
        for queue in queues
        if not is_parking_queue(queue)
    )
