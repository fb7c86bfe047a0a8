"""
The ledger: what is known of each job, in Redis.

*accounted once*: a batch is counted by (job, series, number) however often it
is delivered; the counters move in the same step as the mark. What one delivery
copied, another finds present: so every object that any delivery of a batch
found missing is marked before it is copied, and counts as copied in the end.
*true progress*: what is settled never exceeds the plan and never goes back,
and equals it when every batch is accounted for.
*final is final*: a job in a final state stays in it, and so do its counters.
*one at a time*: a running batch is leased to its worker; a second delivery steps
aside for as long as the lease is renewed. A job is driven by one orchestrator at
a time. That saves work; no promise depends on it.
*bounded*: a bit for each object of the plan, a lease for each running batch, a
bounded list of failures; nothing else grows with a job.

Keys of one job, all expiring together: ``snapferry:job:<id>`` (hash: request,
state, totals, counters), ``:done:<series>`` (bitmap of accounted batches),
``:running`` (hash: progress inside unaccounted batches), ``:begun`` and ``:needed``
(hashes: how often a batch was begun, what it found missing), ``:leases`` and
``:holders`` (who runs a batch, until when), ``:held`` (set: batches given back
while paused), ``:alone`` (hash: of batches that killed workers, which object is
copied now, and which ones workers died over), ``:moves`` (hash: when a run last
moved, and its objects in flight), ``:copied`` and ``:failed`` (bitmaps of the plan's objects),
``:failures`` (list, bounded), ``:classes`` (hash: failures counted by class),
``:groups`` (hash: how snapshots ended), ``:heals``, ``:driver``. Most of them
go when the job ends. ``snapferry:jobs`` and ``snapferry:open`` list the jobs.

    state     what is said of a job
    scripts   the steps, in Lua; queue_scripts: those that look into the queues
    bitmaps   bits of what Redis returns
    batches   what workers write
    jobs      what orchestrators and operators read and write
    queries   what is told of jobs
    budget    what a job with a budget has spent
    mirrors   what became of jobs that are made again and again
"""

from .batches import FAILURES_KEPT, GRACE_S, LEASE_S
from .bitmaps import bit, bits, set_bits
from .jobs import MAX_DRIVES, Ledger
from .keys import PLAN
from .mirrors import MirrorLedger, MirrorRecord
from .state import (
    Begun,
    Directive,
    FailedObject,
    JobStatus,
    RunningBatch,
    Spent,
    Standing,
    State,
    UnknownJob,
    UnreadableJob,
    Waiting,
)

__all__ = [
    "FAILURES_KEPT",
    "GRACE_S",
    "LEASE_S",
    "MAX_DRIVES",
    "PLAN",
    "Begun",
    "Directive",
    "FailedObject",
    "JobStatus",
    "Ledger",
    "MirrorLedger",
    "MirrorRecord",
    "RunningBatch",
    "Spent",
    "Standing",
    "State",
    "UnknownJob",
    "UnreadableJob",
    "Waiting",
    "bit",
    "bits",
    "set_bits",
]
