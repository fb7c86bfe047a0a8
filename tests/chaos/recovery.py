"""How long it takes until work goes on after a fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from snapferry.workers.ledger import JobStatus


@dataclass
class Moves:
    """When a job was first seen, when it moved, and when it ended."""

    seen_at: float | None = None
    ended_at: float | None = None
    moved_at: list[float] = field(default_factory=list)
    epoch: int = 0
    last: tuple[object, ...] = ()

    def saw(self, status: JobStatus, at: float, epoch: int) -> None:
        """Note the *status* that the job has *at* a time."""
        token = (
            status.state,
            status.objects_settled,
            status.batches_done,
            status.bytes_moved,
            status.snapshots_settled,
        )
        if self.seen_at is None:
            self.seen_at = at
        elif token != self.last:
            self.moved_at.append(at)
        self.last, self.epoch = token, epoch
        self.ended_at = (self.ended_at or at) if status.state.final else None

    def open_at(self, at: float) -> bool:
        """Return whether the job had begun and not ended."""
        return self.seen_at is not None and self.seen_at <= at and not (self.ended_at and self.ended_at <= at)

    def moves_after(self, at: float) -> float | None:
        """Return when the job moved or ended after a time."""
        return min([moved for moved in [*self.moved_at, self.ended_at] if moved and moved > at], default=None)


def recovered_s(
    ended_at: float, others: Iterable[tuple[float, float]], jobs: Sequence[Moves]
) -> float | None:
    """
    Return the seconds from the end of a fault until every job that was open then has moved, None if no job was open.

    *others* are (begin, end) of other faults. Time in which one of those lasted that ended before the jobs moved does
    not count: the clock starts when it ended.
    """
    waited = [job for job in jobs if job.open_at(ended_at)]
    moved = [at for job in waited if (at := job.moves_after(ended_at)) is not None]
    if not moved:
        return None
    recovered = max(moved)
    starts = [end for begin, end in others if ended_at < end <= recovered and begin < recovered]
    return recovered - max([ended_at, *starts])
