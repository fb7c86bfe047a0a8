"""
What crosses the broker, and what the ledger keeps of a job's request.

    job_spec   what a user asks of a job
    actions    what a job does, and the options of some actions
    batch      the objects of one task
    scheduled  a mirror or a scrub that is due
    addresses  addresses and snapshot ids, encoded
    lines      the lines of a batch of files, encoded
    files      what the line of a file holds
    base       versions, and the bounds of every field

Messages are small and name stores by URLs that hold no credentials. Anyone who can read Redis or Flower can
read every field of a message.

*versions*: a message carries the version of its form, which is also the version of the planning rules. A process
that cannot read this version requeues the message. A version reads its own messages and those of the version
before, which lack the new fields: the default of a new field is what the version before did. A job keeps the
version with which it was submitted, in its record and in all of its batches, and is planned by the rules of that
version. So two neighbouring versions can share a fleet, and the jobs of both finish.

*bounded*: every field has a maximum length, a range or a pattern. Ids become parts of Redis keys and of file names,
positions become bits in Redis, and numbers become seconds, bytes and threads.
"""

from .actions import (
    MOST_SHARES,
    MOST_SOURCES,
    Action,
    Scope,
    ScrubPart,
    TreeOptions,
    VerifyOptions,
)
from .addresses import (
    decode_addresses,
    decode_snapshot_ids,
    encode_addresses,
    encode_digests,
    encode_snapshot_ids,
)
from .base import (
    GROUP_BATCHES,
    JOB_ID,
    MIRROR_NAME,
    MOST_OBJECTS,
    MOST_SNAPSHOTS,
    SERIES,
    VERSION,
    ScheduleKind,
    StoreRef,
    is_job_id,
)
from .batch import BatchMessage, identify_batch
from .job_spec import NEWEST_RULES, Budget, CopyOptions, JobSpec, Limits, Order, Price, Prune
from .lines import encode_lines
from .scheduled import MirrorMessage, ScrubMessage

__all__ = [
    "GROUP_BATCHES",
    "JOB_ID",
    "MIRROR_NAME",
    "MOST_OBJECTS",
    "MOST_SHARES",
    "MOST_SNAPSHOTS",
    "MOST_SOURCES",
    "NEWEST_RULES",
    "SERIES",
    "VERSION",
    "Action",
    "BatchMessage",
    "Budget",
    "CopyOptions",
    "JobSpec",
    "Limits",
    "MirrorMessage",
    "Order",
    "Price",
    "Prune",
    "ScheduleKind",
    "Scope",
    "ScrubMessage",
    "ScrubPart",
    "StoreRef",
    "TreeOptions",
    "VerifyOptions",
    "decode_addresses",
    "decode_snapshot_ids",
    "encode_addresses",
    "encode_digests",
    "encode_lines",
    "encode_snapshot_ids",
    "identify_batch",
    "is_job_id",
]
