"""Queue the job of a mirror or scrub that is due, unless its last job has not ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import ScheduleLedger
from snapferry.workers.messages import JobSpec

from .status import last_job

log = logging.getLogger(__name__)

# While a process queues a job, others leave the mirror or scrub alone for this many seconds.
_TAKEN_S: Final = 30


@dataclass(frozen=True)
class Queued:
    """The job that was queued, or why none was."""

    job_id: str = ""
    skipped: str = ""


def queue_due(jobs: Jobs, records: ScheduleLedger, name: str, spec: Callable[[], JobSpec]) -> Queued:
    """
    Queue the job of a mirror or scrub, and record that, or that it was skipped; return which.

    *spec* makes the request. May be called again: a second call finds the job of the first. Raises what `Jobs` raises.
    """
    with records.taken(name, _TAKEN_S) as mine:
        if not mine:
            return Queued(skipped="another process queues its job")
        last = last_job(jobs, records.record(name))
        if last is not None and not last.state.final:
            why = f"job {last.job_id} has not ended ({last.state})"
            records.skipped(name, why)
            log.warning("%s %s skipped: %s", records.kind, name, why)
            return Queued(skipped=why)
        job_id = jobs.submit(spec(), schedule=f"{records.kind}:{name}")
        records.started(name, job_id)
        log.info("%s %s: job %s queued", records.kind, name, job_id)
        return Queued(job_id)
