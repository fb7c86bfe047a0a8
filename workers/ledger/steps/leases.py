"""Leases: which worker runs a batch, and until when no other worker may begin it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import ROSTER_S, WORKERS, batch_name, done_key, job_key, job_keys
from snapferry.workers.ledger.state import Begun
from snapferry.workers.messages import BatchMessage
from snapferry.workers.redis_json import parse_json

# Seconds of a lease of a batch or of a job. Its holder renews it well before.
LEASE_S: Final = 30

# A batch that waits for its retry keeps its lease this many seconds longer than the wait.
GRACE_S: Final = 20


class LeaseLedger(LedgerBase):
    """
    The leases of batches.

    Every method may be repeated with the same arguments, except `begin`, which counts its calls. All raise
    `redis.exceptions.RedisError` when the client stops retrying. The last write may then have happened or not.
    """

    def begin(self, batch: BatchMessage, holder: str, *, instead_of: str = "") -> Begun:
        """
        Lease *batch* to *holder* for `LEASE_S` seconds, unless its job has stopped or reached its bound, or another
        holder has the lease.

        *instead_of* names a holder that is known to be dead: its lease is taken over. `progress` renews a lease.
        """
        parts = job_keys(batch.job_id, "begun", "leases", "holders", "held", "alone", "moves", "running")
        arguments: list[str | float] = [batch.number, batch_name(batch), self._expires_s]
        arguments += [holder, instead_of, LEASE_S, batch.highest_position, sum(batch.sizes), ROSTER_S]
        record = [job_key(batch.job_id), done_key(batch.job_id, batch.series), *parts, WORKERS]
        result, other, times, deaths, lost, submitted = self._run(scripts.BEGIN, record, arguments)
        return Begun(
            accounted=result == "accounted",
            stopped=result == "stopped",
            paused=result == "paused",
            foreign=result == "foreign",
            bounded=result == "bounded",
            holder=str(other),
            times=int(times),
            deaths={int(position): int(count) for position, count in parse_json(deaths or "{}").items()},
            lost=int(lost) if lost else None,
            submitted=str(submitted),
        )

    def release(
        self, batch: BatchMessage, holder: str, *, again_in_s: float = 0, ended: bool = False
    ) -> None:
        """
        End the lease of *batch*. Its worker is alive, so this start does not count towards the deaths of the batch.

        If the worker is *ended* while it runs the batch, the start does count. *again_in_s*: a message that is queued
        already begins the batch again in this many seconds.
        """
        self._release(batch, holder, again_in_s=again_in_s, ended=ended, hold=False)

    def hold(self, batch: BatchMessage, holder: str) -> bool:
        """
        End the lease of *batch* because its job is paused. The batch is queued again when the job is resumed.

        Return False if the job was resumed meanwhile or has ended: then the caller queues the batch again. Return
        True also if *holder* does not have the batch any more.
        """
        return self._release(batch, holder, again_in_s=0, ended=False, hold=True) != 1

    def _release(
        self, batch: BatchMessage, holder: str, *, again_in_s: float, ended: bool, hold: bool
    ) -> int:
        retry_s = again_in_s + GRACE_S if again_in_s else 0
        result = self._run(
            scripts.RELEASE,
            job_keys(batch.job_id, "", "leases", "holders", "begun", "alone", "moves", "held"),
            [holder, batch_name(batch), retry_s, self._expires_s, int(ended), int(hold)],
        )
        return int(result)

    def note_current_object(self, batch: BatchMessage, holder: str, position: int) -> None:
        """
        Note that *holder* copies the object at *position*, and no other object of *batch* at the same time.

        If the holder dies before it notes another object, the death counts for this object; see `begin`.
        """
        self._run(
            scripts.NOTE_CURRENT_OBJECT,
            job_keys(batch.job_id, "holders", "alone"),
            [holder, batch_name(batch), position, self._expires_s],
        )

    def begun(self, job_id: str, names: Sequence[str]) -> list[int]:
        """Return for each named batch how often it was begun and did not end. Starts on lost machines do not count."""
        return self._counts(job_id, names)

    def lost(self, job_id: str, names: Sequence[str]) -> list[int]:
        """Return for each named batch how many machines were lost that ran it, since it last got on."""
        return self._counts(job_id, [f"{name}#lost" for name in names])

    def _counts(self, job_id: str, fields: Sequence[str]) -> list[int]:
        found: Any = self._redis.hmget(job_key(job_id, "begun"), list(fields)) if fields else []
        return [int(times or 0) for times in found]

    def revoke_lease(self, job_id: str, name: str, worker: str) -> None:
        """
        End the lease of a batch that *worker* ran when its shutdown killed it, so that the batch can be begun again.

        The start does not count towards the deaths of the batch.
        """
        parts = job_keys(job_id, "leases", "holders", "begun", "alone")
        self._run(scripts.REVOKE_LEASE, parts, [name, worker])

    def note_retry(self, job_id: str, name: str, seconds: float) -> None:
        """
        Note that a message begins a batch again in *seconds*, so the batch is not lost although no worker runs it.

        A batch that runs or is accounted for stays as it is.
        """
        series, _, number = name.partition(":")
        arguments: list[str | float] = [name, seconds + GRACE_S, self._expires_s]
        # The name comes from a message, which may be of another version and hold anything.
        arguments.append(number if number.isascii() and number.isdecimal() and len(number) < 10 else -1)
        record = [job_key(job_id), *job_keys(job_id, "leases", "holders"), done_key(job_id, series)]
        self._run(scripts.NOTE_RETRY, record, arguments)

    def note_requeued(self, job_id: str, names: list[str]) -> None:
        """Note that batches are in the queue again: their leases end, except for batches that run already."""
        if names:
            parts = job_keys(job_id, "", "leases", "holders", "held", "begun", "alone")
            self._run(scripts.NOTE_REQUEUED, [*parts, WORKERS], [ROSTER_S, *names])
