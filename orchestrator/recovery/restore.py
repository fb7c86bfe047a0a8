"""
What is made of an export: ended jobs become records, jobs that had not ended are submitted again.

An export gives a job no power that its submission would not give it: a record of an ended job is never driven, and a
job that is submitted opens the stores that the fleet allows, by the request that a submission checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from snapferry.orchestrator.driving.snapshot_rows import rows_of
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.planning.snapshots import PLANNED, TRUSTED, UNREADABLE
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import Action, JobSpec, encode_addresses

from .document import Export, ExportedJob
from .schedules import import_schedule


class End(StrEnum):
    """What was done with a job of an export."""

    RECORDED = "recorded"
    """It had ended: its record is here again."""
    KNOWN = "known"
    """There is a record of it already. Nothing was changed."""
    OPEN = "open"
    """It had not ended, and was not submitted."""
    SUBMITTED = "submitted"
    """It had not ended, and was submitted again under its own id."""
    SCHEDULED = "scheduled"
    """It had not ended, and the next run of its mirror or scrub does its work."""
    DELETES = "deletes"
    """It had not ended, and would delete or overwrite something by a state of the source that may have passed."""


@dataclass(frozen=True)
class Restored:
    """A job of an export, and what was done with it."""

    job: ExportedJob
    end: End

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self.job.request.job_id


def import_export(ledger: Ledger, export: Export) -> list[Restored]:
    """
    Record the ended jobs and the schedules of *export*; return what was done with each job. May be repeated.

    Raises `redis.exceptions.RedisError`; some are recorded then.
    """
    for schedule in export.schedules:
        import_schedule(ledger.client, schedule)
    found = []
    for job in export.jobs:
        known = bool(ledger.states([job.request.job_id])[0])
        if known or not _ended(job):
            end = End.KNOWN if known else End.OPEN
        else:
            end = End.RECORDED if _record(ledger, job) else End.KNOWN
        found.append(Restored(job, end))
    return found


def recover(
    jobs: Jobs,
    imported: list[Restored],
    *,
    deleting: bool = False,
    begun: Callable[[Restored], None] = lambda _: None,
) -> list[Restored]:
    """
    Submit the jobs that `import_export` left open, the oldest first; return what was done with each job.

    They keep their ids, limits, priorities and pauses. With *deleting*, also those that delete or overwrite. *begun* is
    called with each job that was submitted. May be repeated: a job that was submitted is known. Raises what `Jobs`
    raises; some jobs are submitted then.
    """
    found = []
    for one in sorted(imported, key=lambda one: one.job.submitted_at):
        end = one.end
        if end is End.OPEN:
            end = _left_alone(one.job, deleting=deleting) or End.SUBMITTED
        done = Restored(one.job, end)
        if end is End.SUBMITTED:
            jobs.submit(one.job.request, paused=one.job.paused)
            begun(done)
        found.append(done)
    return found


def _left_alone(job: ExportedJob, *, deleting: bool) -> End | None:
    if job.schedule:
        return End.SCHEDULED
    spec = job.request
    deletes = spec.prune is not None or spec.tree.delete or spec.action is Action.PULL
    return End.DELETES if deletes and not deleting else None


def _ended(job: ExportedJob) -> bool:
    # Who cancelled a job does not want it any more.
    return job.state.final or job.cancelling


def _record(ledger: Ledger, job: ExportedJob) -> bool:
    spec, state = job.request, job.state
    cancelled = not state.final
    fields: dict[str, Any] = {
        **{str(name): count for name, count in job.counters.items()},
        **(_snapshots(spec, job) if job.snapshots is not None else _totals(spec)),
        "started_at": job.started_at,
        "ended_at": job.ended_at or job.submitted_at,
        "moved_at": job.ended_at or job.submitted_at,
        "imported": 1,
        **{
            name: value for name, value in (("continued_by", job.continued_by), ("cause", job.cause)) if value
        },
        **({"error": printable(job.error)} if job.error else {}),
        **({"bounded": job.bounded} if job.bounded else {}),
    }
    return ledger.import_ended(
        spec,
        type(state).CANCELLED if cancelled else state,
        fields,
        submitted_at=job.submitted_at,
        schedule=job.schedule,
    )


def _snapshots(spec: JobSpec, job: ExportedJob) -> dict[str, Any]:
    """Return the fields of a record that hold the job's snapshots, as `freeze` and the end of a job write them."""
    rows = [row.row for row in job.snapshots or ()]
    ids = [row.id for row in rows]
    given: dict[str, int] = {snapshot_id: index for index, snapshot_id in enumerate(spec.snapshot_ids)}
    order = (
        {"ids": encode_addresses(ids)} if spec.everything else {"order": json.dumps([given[i] for i in ids])}
    )
    kinds = [TRUSTED if row.state == "trusted" else UNREADABLE if row.unreadable else PLANNED for row in rows]
    ended = {
        index: row for index, row in enumerate(rows) if kinds[index] == PLANNED and row.state != "pending"
    }
    return {
        **order,
        **rows_of({index: row.values for index, row in ended.items()}),
        "kinds": "".join(kinds),
        "reasons": json.dumps({index: row.reason for index, row in enumerate(rows) if row.unreadable}),
        "snapshots_total": len(rows),
        "first_snapshot": ids[0] if ids else "",
    }


def _totals(spec: JobSpec) -> dict[str, Any]:
    # A resume of a job of everything, whose snapshots are unknown, must begin with a listing.
    return {"snapshots_total": 0} if spec.everything else {}
