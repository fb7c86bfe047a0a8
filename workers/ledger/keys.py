"""The names of the ledger's keys in Redis, and of fields that other packages read."""

from __future__ import annotations

from typing import Final, NewType

from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import BatchMessage, ScheduleKind

BatchName = NewType("BatchName", str)
"""The name of a batch within its job: ``series:number``."""

PLAN: Final = "plan"
"""The series of the batches of the plan."""

# All jobs by the time of their submission, and the jobs that have not ended.
INDEX: Final = RedisKey("snapferry:jobs")
OPEN: Final = RedisKey("snapferry:open")

# Jobs that have ended, by the time of their end, until an orchestrator has settled them. If none does, the oldest are
# dropped.
ENDED: Final = RedisKey("snapferry:ended")
MOST_ENDED: Final = 50_000

# Jobs that have ended and are not notified yet, by the time of their end; and what was notified and is not over, as
# "mirror:nightly" or "job:ID".
UNTOLD: Final = RedisKey("snapferry:untold")
PROBLEMS: Final = RedisKey("snapferry:notify:problems")

# Notifications that wait to be sent, by their ids, and how often sending one to a receiver came to which result.
OUTBOX: Final = RedisKey("snapferry:notify:outbox")
DELIVERIES: Final = RedisKey("snapferry:notify:deliveries")

# When each mirror last succeeded, by its name.
MIRROR_SUCCESSES: Final = RedisKey("snapferry:success:mirror")

# What runs on a schedule, as a part of the keys of the records.
MIRROR: Final[ScheduleKind] = "mirror"
SCRUB: Final[ScheduleKind] = "scrub"

# The prefix of what Celery beat keeps of the schedule.
SCHEDULE: Final = "snapferry:beat:"

# The jobs with a parking queue: job id -> what a worker must know before it takes batches from the queue.
PARKED: Final = RedisKey("snapferry:parked")

# The workers by their names: when each last announced itself, and which queues it serves.
WORKERS: Final = RedisKey("snapferry:workers")

# A worker that has not announced itself for this many seconds is gone.
ROSTER_S: Final = 20.0

# The parking queues of jobs that have ended: name of the queue -> when it was found empty.
UNPARKED: Final = RedisKey("snapferry:unparked")

# The parts of a job that are kept after its end, and the parts that are removed at its end.
KEPT: Final = ("failures", "failed", "classes", "repairs", "running", "parts")
WORKING: Final = (
    "begun", "needed", "leases", "holders", "held", "heals", "groups", "copied", "alone", "moves", "spent", "files",
)  # fmt: skip

# The name of a limit -> its field in the record of a job.
LIMIT_FIELDS: Final = {name: f"limit_{name}" for name in ("rate", "requests", "jobs")}

# The field with the budget of a job, if it has one.
BUDGET_FIELD: Final = "budget"

# The field with the mirror or scrub that queued the job, as ``mirror:nightly``, if one did.
SCHEDULE_FIELD: Final = "schedule"

# The field with the requests per second at S3 stores that have no limit of their own.
S3_REQUESTS_FIELD: Final = "s3_requests"


def job_key(job_id: str, part: str = "") -> RedisKey:
    """Return the key of the record of a job, or of a *part* of the job."""
    return RedisKey(f"snapferry:job:{job_id}:{part}" if part else f"snapferry:job:{job_id}")


def job_keys(job_id: str, *parts: str) -> list[RedisKey]:
    """Return the keys of several parts of a job."""
    return [job_key(job_id, part) for part in parts]


def parts_keys(job_id: str, tag: str) -> list[RedisKey]:
    """
    Return the keys of an object that is copied in parts, by the name of its upload.

    They hold the parts to do by the time at which they may be claimed, their holders, and the records of those done.
    """
    return job_keys(job_id, *(f"parts:{tag}:{what}" for what in ("todo", "holders", "done")))


def done_key(job_id: str, series: str) -> RedisKey:
    """Return the key of the bitmap of the accounted batches of a series."""
    return job_key(job_id, f"done:{series}")


def batch_name(batch: BatchMessage) -> BatchName:
    """Return the name of a batch within its job."""
    return BatchName(f"{batch.series}:{batch.number}")
