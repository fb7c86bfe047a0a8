"""
The ledger: the record of each job, in Redis.

*accounted once*: a batch is counted by (job, series, number) however often it is delivered. The counters move in the
same step as the mark of the batch. An object that one run of a batch copied is present for the next run. So each object
that any run finds missing is marked before it is copied, and counts as copied in the end.
*true progress*: the settled objects and bytes never exceed the plan, never go back, and equal the plan when every batch
is accounted for.
*final is final*: a job never leaves a final state, and its counters do not change any more.
*one at a time*: a running batch is leased to its worker. A second delivery gives way while the lease is renewed. One
orchestrator at a time drives a job. This saves work; no guarantee depends on it.
*bounded*: one bit for each object of the plan, a lease for each running batch, a bounded list of failures. Nothing else
grows with a job, but the digests of files that are pushed: 40 bytes each.

Keys of one job, all expiring together: ``snapferry:job:<id>`` (hash: request, state, totals, counters),
``:done:<series>`` (bitmap of accounted batches), ``:running`` (hash: progress of unaccounted batches), ``:begun`` and
``:needed`` (hashes: how often a batch was begun, what it found missing), ``:leases`` and ``:holders`` (until when a
batch is leased, and to which worker), ``:held`` (set: batches that wait until the job is resumed), ``:alone`` (hash:
for batches that are copied one object at a time, which object is copied now, and over which objects workers died),
``:moves`` (hash: when a run last moved, and its objects in flight), ``:copied`` and ``:failed`` (bitmaps of the plan's
objects), ``:failures`` (list, bounded), ``:repairs`` (hash, bounded: wrong objects, and what took their place),
``:classes`` (hash: failures counted by class), ``:groups`` (hash: how snapshots ended, up to 1,000 of them in a value),
``:spent`` (hash: what unaccounted batches have spent), ``:parts`` (hash: objects that are copied in parts),
``:parts:<upload>:todo``, ``:holders`` and ``:done`` (sorted set, hash and list: the parts of one object to do, who
copies them, and records of those done), ``:files`` (string: what pushed files hash to), ``:heals``,
``:driver``. Most of them are removed when the job ends. ``snapferry:jobs`` and ``snapferry:open`` list the jobs.

    ledger   all steps together
    steps/   the steps, by topic
    damage/  keys that another program damaged
    lua/     the scripts: steps that are atomic
    scripts  the scripts by their names in Python
    base     what all steps share
    keys     names of keys and fields
    state    the values that the ledger returns
    queries  a job's status, made from its record
    entries  jobs as lists of thousands need them
    bitmaps  bits of the bitmaps that Redis returns
    schedules  the last runs of mirrors and scrubs
    scrubs   how far scrubs are
    freshness  when mirrors, scrubs and stores last succeeded, and what is late
"""

from snapferry.workers.job_state import DISMISSED, SUPERSEDED, State

from .bitmaps import bit, bits, set_bits
from .entries import JobEntry
from .freshness import Expected, Freshness, FreshnessLedger
from .keys import PLAN
from .ledger import Ledger
from .queries import LONGEST_NOTE
from .schedules import ScheduleLedger, ScheduleRecord
from .scrubs import NewCycle, RunEnd, ScrubLedger, ScrubRun, ScrubState
from .state import (
    Begun,
    Directive,
    Dismissal,
    FailedObject,
    JobStatus,
    ObjectInParts,
    Repair,
    RunningBatch,
    Spent,
    Standing,
    UnknownJob,
    UnreadableJob,
    Waiting,
)
from .steps.accounting import FAILURES_KEPT
from .steps.driver import MAX_DRIVES
from .steps.files import MOST_FILES
from .steps.files import RECORD_BYTES as FILE_RECORD_BYTES
from .steps.jobs import request_text
from .steps.leases import GRACE_S, LEASE_S
from .steps.parts import CLAIM_S, Finished, PartsOf
from .steps.repairs import REPAIRS_KEPT

__all__ = [
    "CLAIM_S",
    "DISMISSED",
    "FAILURES_KEPT",
    "FILE_RECORD_BYTES",
    "GRACE_S",
    "LEASE_S",
    "LONGEST_NOTE",
    "MAX_DRIVES",
    "MOST_FILES",
    "PLAN",
    "REPAIRS_KEPT",
    "SUPERSEDED",
    "Begun",
    "Directive",
    "Dismissal",
    "Expected",
    "FailedObject",
    "Finished",
    "Freshness",
    "FreshnessLedger",
    "JobEntry",
    "JobStatus",
    "Ledger",
    "NewCycle",
    "ObjectInParts",
    "PartsOf",
    "Repair",
    "RunEnd",
    "RunningBatch",
    "ScheduleLedger",
    "ScheduleRecord",
    "ScrubLedger",
    "ScrubRun",
    "ScrubState",
    "Spent",
    "Standing",
    "State",
    "UnknownJob",
    "UnreadableJob",
    "Waiting",
    "bit",
    "bits",
    "request_text",
    "set_bits",
]
