"""The ledger as a worker sees it: batches begun, on their way, and accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import redis

from snapferry.stores.address import Address
from snapferry.stores.text.printable import printable
from snapferry.workers.messages import BatchMessage, Budget
from snapferry.workers.outcome import BatchOutcome, Failure

from . import budget as spending
from . import scripts
from .keys import BUDGET, PLAN, done, key, keys, name_of
from .state import Begun, Directive, FailedObject, Spent

# The list of failures keeps this many; which objects failed is known exactly whatever its length.
FAILURES_KEPT: Final = 1000

# A running batch is leased to its worker for this long; the worker renews the lease well before.
LEASE_S: Final = 30

# A batch that waits for another try has its lease for so much longer than the wait.
GRACE_S: Final = 20


class BatchLedger:
    """
    The part of the ledger that workers write, on one Redis server.

    Every method may be called again with the same arguments and changes
    nothing by it, but `begin`, which counts its calls. All raise
    `redis.exceptions.RedisError` once the client's patience with an outage is
    at its end; whether the last write happened is then unknown.
    """

    def __init__(self, client: redis.Redis, *, expires_s: int) -> None:
        self._redis = client
        self._expires_s = expires_s
        self._scripts: dict[str, Any] = {}

    @property
    def client(self) -> redis.Redis:
        """The client, for other records on the same server."""
        return self._redis

    def _run(self, script: str, keys: list[str], arguments: list[str | float]) -> Any:
        found = self._scripts.get(script)
        if found is None:
            found = self._scripts[script] = self._redis.register_script(script)
        return found(keys=keys, args=arguments)

    def begin(self, batch: BatchMessage, holder: str, *, instead_of: str = "") -> Begun:
        """
        Lease *batch* to *holder* for `LEASE_S` seconds, unless it wants no more work or another has it.

        *instead_of* names a holder that is known to be dead: its lease is taken over. `progress` renews a lease.
        """
        parts = keys(batch.job_id, "begun", "leases", "holders", "held", "alone", "moves")
        arguments: list[str | float] = [batch.number, name_of(batch), self._expires_s]
        arguments += [holder, instead_of, LEASE_S, batch.highest_position]
        said, other, times, deaths = self._run(
            scripts.BEGIN, [key(batch.job_id), done(batch.job_id, batch.series), *parts], arguments
        )
        return Begun(
            accounted=said == "accounted",
            stopped=said == "stopped",
            paused=said == "paused",
            foreign=said == "foreign",
            holder=str(other),
            times=int(times),
            deaths={int(place): int(count) for place, count in json.loads(deaths or "{}").items()},
        )

    def release(
        self, batch: BatchMessage, holder: str, *, again_in_s: float = 0, ended: bool = False
    ) -> None:
        """
        Give the lease of *batch* back: its worker lives, so this beginning is no sign of a deadly batch.

        Unless the worker is being *ended* in the middle of it: then it is counted like a death.
        *again_in_s* seconds later the batch is to be begun again, by a message that is on its way already.
        """
        self._release(batch, holder, again_in_s=again_in_s, ended=ended, hold=False)

    def hold(self, batch: BatchMessage, holder: str) -> bool:
        """
        Give the lease of *batch* back because its job is paused, so that it is handed out when the job goes on.

        False if the job goes on already, or has ended: then the batch is to be queued again. True as well where
        *holder* no longer has the batch.
        """
        return self._release(batch, holder, again_in_s=0, ended=False, hold=True) != 1

    def _release(
        self, batch: BatchMessage, holder: str, *, again_in_s: float, ended: bool, hold: bool
    ) -> int:
        waits = again_in_s + GRACE_S if again_in_s else 0
        said = self._run(
            scripts.RELEASE,
            keys(batch.job_id, "", "leases", "holders", "begun", "alone", "moves", "held"),
            [holder, name_of(batch), waits, self._expires_s, int(ended), int(hold)],
        )
        return int(said)

    def note_current_object(self, batch: BatchMessage, holder: str, position: int) -> None:
        """
        Note that *holder* now copies the object at *position* and no other one of *batch*.

        If the holder dies before it notes another, that object is taken to have killed it; see `begin`.
        """
        self._run(
            scripts.ALONE,
            keys(batch.job_id, "holders", "alone"),
            [holder, name_of(batch), position, self._expires_s],
        )

    def begun(self, job_id: str, names: Sequence[str]) -> list[int]:
        """Return how often each of these batches was begun and not heard of again."""
        if not names:
            return []
        found: Any = self._redis.hmget(key(job_id, "begun"), list(names))
        return [int(times or 0) for times in found]

    def revoke_lease(self, job_id: str, name: str, worker: str) -> None:
        """Note that *worker* was ended while it ran a batch: its lease is over, and the batch can be begun anew."""
        self._run(scripts.VOID, keys(job_id, "leases", "holders"), [name, worker])

    def note_retry(self, job_id: str, name: str, seconds: float) -> None:
        """
        Note that a batch is not lost though nobody runs it: its message is begun again *seconds* later.

        Of a batch that runs or is accounted for, nothing is noted.
        """
        series, _, number = name.partition(":")
        arguments: list[str | float] = [name, seconds + GRACE_S, self._expires_s]
        # A name out of a message of another version may be anything.
        arguments.append(number if number.isascii() and number.isdecimal() and len(number) < 10 else -1)
        record = [key(job_id), *keys(job_id, "leases", "holders"), done(job_id, series)]
        self._run(scripts.WAIT, record, arguments)

    def note_missing(self, batch: BatchMessage, needed: list[Address]) -> None:
        """Note which addresses this delivery of *batch* found missing, before it copies any of them."""
        if batch.series != PLAN:
            return
        record = [
            key(batch.job_id),
            done(batch.job_id, batch.series),
            *keys(batch.job_id, "needed", "copied"),
        ]
        arguments: list[str | float] = [name_of(batch), batch.number, self._expires_s]
        if len(needed) == len(batch.sizes) and len(batch.positions) == 1:
            # Of most batches everything is missing: a range says it for a thousandth of the words.
            every = [batch.positions[0], len(needed), sum(batch.sizes)]
            if self._run(scripts.NEED_ALL, record, [*arguments, *every]):
                return
        places, sizes = batch.positions_by_address(), batch.objects()
        for address in needed:
            arguments += [places[address], sizes[address]]
        self._run(scripts.NEED, record, arguments)

    def progress(
        self, batch: BatchMessage, holder: str, *, objects: int, size_bytes: int, in_flight: int = 0
    ) -> Directive:
        """
        Note how far *holder* is with a batch, of its own plan; renew its lease; return what the job wants of it.

        *in_flight* is how many objects are on their way at this moment.
        """
        parts = keys(batch.job_id, "running", "leases", "holders", "moves")
        arguments: list[str | float] = [batch.number, name_of(batch), objects, size_bytes]
        arguments += [self._expires_s, holder, LEASE_S, in_flight]
        return Directive(
            int(
                self._run(
                    scripts.PROGRESS,
                    [key(batch.job_id), done(batch.job_id, batch.series), *parts],
                    arguments,
                )
            )
        )

    def note_confirmed(self, job_id: str, confirmed: Mapping[str, int]) -> None:
        """Add to how many objects of a job were written, by what confirmed them. Each run of a batch adds its own."""
        if confirmed:
            counts: list[str | float] = [
                part for name, count in confirmed.items() for part in (f"confirmed:{name}", count)
            ]
            self._run(scripts.NOTE_CONFIRMED, [key(job_id)], counts)

    def account(
        self, batch: BatchMessage, outcome: BatchOutcome, *, attempts: int = 1, worker: str = ""
    ) -> bool:
        """
        Count how *batch* ended; False if it was counted before or the job has ended, and then nothing changes.

        *attempts* and *worker* are kept with the objects that failed. To be
        called only when everything that the outcome says is durable.
        """
        parts = ("running", "failures", "needed", "copied", "failed", "classes", "begun", "alone", "moves")
        failures = outcome.failures
        places = batch.positions_by_address() if failures else {}
        arguments: list[str | float] = [
            batch.number,
            name_of(batch),
            int(batch.series == PLAN),
            len(batch.sizes),
            sum(batch.sizes),
            outcome.copied,
            outcome.bytes_copied,
            outcome.needed_bytes,
            self._expires_s,
            FAILURES_KEPT,
            len(failures),
            *(places[failure.address] for failure in failures),
            *(failure.error for failure in failures),
            *(_kept(failure, attempts, worker) for failure in failures[:FAILURES_KEPT]),
        ]
        return bool(
            self._run(
                scripts.ACCOUNT,
                [key(batch.job_id), done(batch.job_id, batch.series), *keys(batch.job_id, *parts)],
                arguments,
            )
        )

    def budget(self, job_id: str) -> Budget | None:
        """Return the budget of a job, None if it has none."""
        found = self._redis.hget(key(job_id), BUDGET)
        return Budget.model_validate_json(found) if found else None

    def spend(
        self,
        batch: BatchMessage,
        budget: Budget,
        *,
        copied_bytes: int,
        in_flight: int,
        objects: int,
        cost: int,
        over: str = "",
    ) -> Spent:
        """
        Note what *batch* has spent so far, all of its runs together; return what its job has.

        *copied_bytes* are those of *objects* that were copied, *in_flight* those of objects on their way, *cost* is in
        millionths. *over* names what the next piece or object is beyond of: the job is over its *budget* then.
        """
        cost_limit = None if budget.max_cost is None else round(budget.max_cost * 1_000_000)
        limits = (budget.max_bytes, budget.max_objects, cost_limit)
        arguments: list[str | float] = [
            name_of(batch),
            copied_bytes,
            in_flight,
            objects,
            cost,
            self._expires_s,
        ]
        arguments += ["" if limit is None else limit for limit in limits]
        record = [key(batch.job_id), key(batch.job_id, "spent")]
        found, own = self._run(spending.SPEND, record, [*arguments, over])
        reached, *totals = found
        copied_bytes, _, copied_objects, batch_cost = map(int, own.split() or (0, 0, 0, 0))
        size_bytes, total_objects, total_cost = (int(total or 0) for total in totals)
        return Spent(reached, size_bytes, total_objects, total_cost, copied_bytes, copied_objects, batch_cost)

    def forget_spending(self, batch: BatchMessage) -> None:
        """Keep what *batch* has spent only in its job's totals: the batch is accounted for."""
        self._redis.hdel(key(batch.job_id, "spent"), name_of(batch))

    def failures(self, job_id: str) -> list[FailedObject]:
        """Return the objects that failed, the first `FAILURES_KEPT` of them; what cannot be read is left out."""
        found = []
        for line in self._redis.lrange(key(job_id, "failures"), 0, FAILURES_KEPT - 1):
            try:
                record: dict[str, Any] = {
                    name: printable(value) if isinstance(value, str) else value
                    for name, value in json.loads(line).items()
                }
                attempts, worker = int(record.pop("attempts")), str(record.pop("worker"))
                found.append(FailedObject(Failure(**record), attempts, worker))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
        return found


def _kept(failure: Failure, attempts: int, worker: str) -> str:
    return json.dumps(asdict(failure) | {"attempts": attempts, "worker": worker})
