"""Progress is true: never above 100 %, never backwards, and a final state never changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from snapferry.workers.ledger import JobStatus
from tests.chaos.world import World

from .clauses import clause


@dataclass
class Progress:
    """What was seen of each job. *epoch* is that of the world: a Redis that forgets may go backwards."""

    seen: dict[str, tuple[int, JobStatus]] = field(default_factory=dict)

    def false(self, status: JobStatus, epoch: int) -> Iterator[str]:
        """Yield what is not true of a job's *status*, also beside what was seen of it before."""
        about = f"job {status.job_id[:8]} ({status.action}, {status.state})"
        if status.objects_total and status.objects_settled > status.objects_total:
            yield f"{about}: {status.objects_settled} of {status.objects_total} objects"
        if status.objects_total and status.bytes_settled > status.bytes_total:
            yield f"{about}: {status.bytes_settled} of {status.bytes_total} bytes"
        before_epoch, before = self.seen.get(status.job_id, (epoch, status))
        self.seen[status.job_id] = (epoch, status)
        if epoch != before_epoch:
            return
        if before.state.final and status.state is not before.state:
            yield f"{about}: was {before.state}"
        if before.batches_total == status.batches_total:
            for name in ("objects_settled", "bytes_settled", "batches_done", "snapshots_settled"):
                if getattr(status, name) < getattr(before, name):
                    yield f"{about}: {name} went from {getattr(before, name)} to {getattr(status, name)}"


@clause("progress is true")
def progress(world: World) -> Iterator[str]:
    """Yield what was found false in samples of all jobs, since the last time."""
    found, world.false_progress[:] = [*world.false_progress], []
    yield from found
