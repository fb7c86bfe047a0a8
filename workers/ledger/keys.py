"""The names of the ledger's keys in Redis."""

from __future__ import annotations

from typing import Final

from snapferry.workers.messages import BatchMessage

PLAN: Final = "plan"

# All jobs by the time of their submission, and those that have not ended.
INDEX: Final = "snapferry:jobs"
OPEN: Final = "snapferry:open"

# The key of the record of each mirror, and the prefix of what Celery beat keeps of the schedule.
MIRROR: Final = "snapferry:mirror"
SCHEDULE: Final = "snapferry:beat:"

# The jobs with a parking queue: id -> what workers must know to decide whether they take batches from it.
PARKED: Final = "snapferry:parked"

# The parking queues of jobs that have ended: name -> when it was empty.
UNPARKED: Final = "snapferry:unparked"

# The parts of a job that are kept after its end, and those that its end makes useless.
KEPT: Final = ("failures", "failed", "classes", "running")
WORKING: Final = (
    "begun", "needed", "leases", "holders", "held", "heals", "groups", "copied", "alone", "moves", "spent",
)  # fmt: skip

# A limit's name -> its field in a job's record.
LIMITS: Final = {name: f"limit_{name}" for name in ("rate", "requests", "jobs")}

# The field in a job's record of its budget, if it has one.
BUDGET: Final = "budget"

# The field in a job's record of what an S3 store keeps to, in requests a second, where nobody set that.
S3_REQUESTS: Final = "s3_requests"


def key(job_id: str, part: str = "") -> str:
    """Return the key of a job's record, or of a *part* of it."""
    return f"snapferry:job:{job_id}:{part}" if part else f"snapferry:job:{job_id}"


def keys(job_id: str, *parts: str) -> list[str]:
    """Return the keys of several parts of a job."""
    return [key(job_id, part) for part in parts]


def done(job_id: str, series: str) -> str:
    """Return the key of the bitmap of accounted batches of a series."""
    return key(job_id, f"done:{series}")


def name_of(batch: BatchMessage) -> str:
    """Return a batch's name within its job."""
    return f"{batch.series}:{batch.number}"
