"""Accounting: what each batch found missing, how far it is, and how it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from redis.client import NEVER_DECODE

from snapferry.stores.address import Address
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.bitmaps import bit
from snapferry.workers.ledger.keys import PLAN, batch_name, done_key, job_key, job_keys
from snapferry.workers.ledger.state import Directive, FailedObject
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.redis_json import count_of, parse_json

from . import leases

# The longest list of failures of a job. Which objects failed is known exactly in any case.
FAILURES_KEPT: Final = 1000

# The name of a class of errors.
_is_class: Final = re.compile(r"[A-Za-z]\w{0,63}", re.ASCII).fullmatch


class AccountingLedger(LedgerBase):
    """
    The counts of a job, batch by batch. *submitted* is that of `Begun`, "" for a caller that began no run.

    Every method may be repeated with the same arguments, except `note_confirmed`, which adds. All raise
    `redis.exceptions.RedisError` when the client stops retrying. The last write may then have happened or not.
    """

    def note_missing(self, batch: BatchMessage, missing: list[Address], *, submitted: str = "") -> None:
        """Note which addresses this run of *batch* found missing, before it copies any of them."""
        if batch.series != PLAN:
            return
        record = [
            job_key(batch.job_id),
            done_key(batch.job_id, batch.series),
            *job_keys(batch.job_id, "needed", "copied"),
        ]
        arguments: list[str | float] = [batch_name(batch), batch.number, self._expires_s, submitted]
        if len(missing) == len(batch.sizes) and len(batch.positions) == 1:
            # In most batches everything is missing. A range takes a thousandth of the arguments.
            everything = [batch.positions[0], len(missing), sum(batch.sizes)]
            if self._run(scripts.NOTE_ALL_MISSING, record, [*arguments, *everything]):
                return
        positions, sizes = batch.positions_by_address(), batch.objects()
        for address in missing:
            arguments += [positions[address], sizes[address]]
        self._run(scripts.NOTE_MISSING, record, arguments)

    def progress(
        self,
        batch: BatchMessage,
        holder: str,
        *,
        objects: int,
        size_bytes: int,
        in_flight: int = 0,
        moved: int = 0,
        hashed: int = 0,
        submitted: str = "",
    ) -> Directive:
        """
        Record how many *objects* and planned bytes of *batch* are settled, and renew the lease of *holder*.

        *in_flight* objects are being copied at this moment. This run has *moved* so many bytes, and has read so many
        for checksums before. Return what the job wants of the batch.
        """
        parts = job_keys(batch.job_id, "running", "leases", "holders", "moves", "begun")
        arguments: list[str | float] = [batch.number, batch_name(batch), objects, size_bytes]
        arguments += [self._expires_s, holder, leases.LEASE_S, in_flight, moved, hashed, submitted]
        record = [job_key(batch.job_id), done_key(batch.job_id, batch.series), *parts]
        return Directive(int(self._run(scripts.PROGRESS, record, arguments)))

    def note_confirmed(self, job_id: str, confirmed: Mapping[str, int]) -> None:
        """
        Add to the counts of written objects of a job, by the way their write was confirmed.

        Each run of a batch adds its own counts.
        """
        if confirmed:
            counts: list[str | float] = [
                part for name, count in confirmed.items() for part in (f"confirmed:{name}", count)
            ]
            self._run(scripts.NOTE_CONFIRMED, [job_key(job_id)], counts)

    def account(
        self,
        batch: BatchMessage,
        outcome: BatchOutcome,
        *,
        attempts: int = 1,
        worker: str = "",
        submitted: str = "",
    ) -> bool:
        """
        Count how *batch* ended. Return False if it was counted before, or the job has ended or is another one: then
        nothing changes.

        *attempts* and *worker* are recorded with the objects that failed. Call this only when every object that the
        outcome counts as copied is durable.
        """
        parts = ("running", "failures", "needed", "copied", "failed", "classes", "begun", "alone", "moves")
        failures = outcome.failures
        positions = batch.positions_by_address() if failures else {}
        arguments: list[str | float] = [
            batch.number,
            batch_name(batch),
            int(batch.series == PLAN),
            len(batch.sizes),
            sum(batch.sizes),
            outcome.copied,
            outcome.bytes_copied,
            outcome.needed_bytes,
            self._expires_s,
            FAILURES_KEPT,
            len(failures),
            outcome.bytes_hashed,
            submitted,
            *(positions[failure.address] for failure in failures),
            *(failure.error for failure in failures),
            *(_record_of(failure, attempts, worker) for failure in failures[:FAILURES_KEPT]),
        ]
        record = [
            job_key(batch.job_id),
            done_key(batch.job_id, batch.series),
            *job_keys(batch.job_id, *parts),
        ]
        return bool(self._run(scripts.ACCOUNT, record, arguments))

    def unaccounted(self, job_id: str, series: str, batches: range) -> list[int]:
        """Return the numbers in *batches* of a series that are not accounted for."""
        found = self._bits(done_key(job_id, series))
        return [number for number in batches if not bit(found, number)]

    def bitmap(self, job_id: str, part: str) -> bytes:
        """Return the bitmap ``copied`` or ``failed`` over the objects of the plan, see `bitmaps`."""
        return self._bits(job_key(job_id, part))

    def _bits(self, key: RedisKey) -> bytes:
        # The only result that must not be decoded as text.
        execute: Any = self._redis.execute_command
        found: bytes | None = execute("GET", key, **{NEVER_DECODE: []})
        return found or b""

    def failures(self, job_id: str) -> list[FailedObject]:
        """Return the first `FAILURES_KEPT` objects that failed. Unreadable records are left out."""
        found = []
        for line in self._redis.lrange(job_key(job_id, "failures"), 0, FAILURES_KEPT - 1):
            try:
                record: dict[str, Any] = {
                    name: printable(value) if isinstance(value, str) else value
                    for name, value in parse_json(line).items()
                }
                attempts, worker = int(record.pop("attempts")), str(record.pop("worker"))
                found.append(FailedObject(Failure(**record), attempts, worker))
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return found

    def failed_by_class(self, job_id: str) -> dict[str, int]:
        """
        Return how many objects failed, by the class of their errors. The counts are exact.

        A class or a count that another program wrote is left out.
        """
        found = self._redis.hgetall(job_key(job_id, "classes")).items()
        return {
            str(name): count
            for name, text in found
            if _is_class(str(name)) and (count := count_of(str(text))) is not None
        }


def _record_of(failure: Failure, attempts: int, worker: str) -> str:
    return json.dumps(asdict(failure) | {"attempts": attempts, "worker": worker})
