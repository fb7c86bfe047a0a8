"""The end of a job of a scrub: what it came to, for the state of the scrub."""

from __future__ import annotations

import logging
from typing import Final

from snapferry.orchestrator.planning.snapshots import UNREADABLE
from snapferry.workers.ledger import JobStatus, RunEnd, ScrubLedger, ScrubRun
from snapferry.workers.limits import store_id
from snapferry.workers.messages import ScrubPart
from snapferry.workers.telemetry.logs import fields

from .context import PlannedDrive

log = logging.getLogger(__name__)

# The errors that are a verdict about an object. After any other error, nothing is known about its bytes.
_WRONG: Final = frozenset({"IntegrityError", "NotAnObject", "ObjectMissing", "Unreadable"})


def settle_scrub(drive: PlannedDrive, status: JobStatus, stopped_at: str) -> None:
    """
    Record what a job of a scrub has read, so that the next run goes on from there. Do nothing for any other job.

    *stopped_at* is the first address that the job has not looked at, "" if it looked at all. To be called before the
    job ends: a job that was cancelled, or failed before it had looked at its objects, is not recorded, and its part is
    read again. May be called again.
    """
    part = drive.spec.scrub
    if part is None:
        return
    by_class = drive.ledger.failed_by_class(drive.job_id)
    found = sum(count for name, count in by_class.items() if name in _WRONG)
    unread = sum(by_class.values()) - found
    manifests = len(drive.snapshots.of(UNREADABLE)) + len(drive.snapshots.unlisted)
    end = RunEnd.UNREAD if unread else RunEnd.PART if stopped_at else RunEnd.READ
    run = ScrubRun(
        job_id=drive.job_id,
        store=store_id(drive.spec.source.url),
        part=part,
        first=drive.spec.scope.first,
        end=end,
        next_at=stopped_at if end is RunEnd.PART else part.next.first,
        found=found,
        manifests=manifests,
        began_at=status.started_at or status.submitted_at,
        tried=status.present > 0 or found > 0,
    )
    if ScrubLedger(drive.ledger.client).settle(run):
        _log(part, run, unread)


def _log(part: ScrubPart, run: ScrubRun, unread: int) -> None:
    log.log(
        logging.WARNING if run.found or run.manifests or unread else logging.INFO,
        "scrub %s: share %d of %d %s",
        part.name,
        part.share + 1,
        part.shares,
        {RunEnd.READ: "read", RunEnd.PART: "read in part", RunEnd.UNREAD: "not read"}[run.end],
        extra=fields(job=run.job_id, wrong=run.found, manifests=run.manifests, unread=unread),
    )
