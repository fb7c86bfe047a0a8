"""Jobs and batches for the tests of the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from snapferry.stores.address import Address
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import (
    PLAN,
    JobStatus,
    Ledger,
    State,
    set_bits,
)
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef, encode_addresses
from snapferry.workers.outcome import BatchOutcome, Failure

HERE, THERE = StoreRef(url="/a"), StoreRef(url="/b")

IDS = [digest(b"a snapshot"), digest(b"another")]

JOB = "snapferry:job:job"

INDEX, OPEN = "snapferry:jobs", "snapferry:open"

ON_THE_WAY = [State.PLANNING, State.COPYING, State.COMMITTING]

FINAL = [State.DONE, State.FAILED, State.CANCELLED]


def request(job_id: str = "job", ids: Iterable[str] = IDS) -> JobSpec:
    return JobSpec(
        job_id=job_id,
        snapshots=encode_addresses(ids),
        source=HERE,
        destination=THERE,
        batch_objects=10,
        batch_bytes=100,
    )


def address(position: int) -> Address:
    return digest(b"object %d" % position)


def batch(
    number: int, *sizes: int, first: int = 0, series: str = PLAN, job_id: str = "job", at: Iterable[int] = ()
) -> BatchMessage:
    """Return a batch whose objects have the positions from *first* on, or the positions *at*."""
    positions = tuple(at) or tuple(range(first, first + len(sizes)))
    return BatchMessage(
        job_id=job_id, series=series, number=number, source=HERE, destination=THERE,
        addresses=encode_addresses(map(address, positions)), sizes=sizes, positions=positions if at else (first,),
    )  # fmt: skip


def outcome(message: BatchMessage, needed: Iterable[int], failed: Iterable[int] = ()) -> BatchOutcome:
    """Return how a delivery of *message* ends that finds some of its objects missing, and cannot copy some of those."""
    addresses = list(message.objects())
    needed, failed = set(needed), sorted(failed)
    copied = needed.difference(failed)
    return BatchOutcome(
        copied=len(copied),
        present=len(addresses) - len(needed),
        bytes_copied=sum(message.sizes[at] for at in copied),
        needed_bytes=sum(message.sizes[at] for at in needed),
        failures=[
            Failure(addresses[at], "ObjectMissing", "/a", f"failure {number}", transient=False)
            for number, at in enumerate(failed)
        ],
    )


def deliver(
    ledger: Ledger, message: BatchMessage, needed: Iterable[int] | None = None, failed: Iterable[int] = ()
) -> bool:
    """Do what a worker does with *message*; without *needed*, none of its objects is there."""
    needed = range(len(message.sizes)) if needed is None else list(needed)
    found_missing(ledger, message, needed)
    return ledger.account(message, outcome(message, needed, failed))


def found_missing(ledger: Ledger, message: BatchMessage, needed: Iterable[int]) -> None:
    addresses = list(message.objects())
    ledger.note_missing(message, [addresses[at] for at in needed])


TWO, THREE, ONE = batch(0, 2, 3), batch(1, 1, 2, 3, first=2), batch(2, 100, first=5)

ALL = (TWO, THREE, ONE)

HEAL_NONE = batch(0, 1, series="heal-0-1")


def counts(status: JobStatus) -> tuple[int, int, int]:
    return status.copied, status.present, status.failed


def settled(status: JobStatus) -> tuple[int, int]:
    return status.objects_settled, status.bytes_settled


def objects_in(ledger: Ledger, part: str) -> list[int]:
    return list(set_bits(ledger.bitmap("job", part)))


def run_out(ledger: Ledger, *names: str) -> None:
    """Let the leases of batches run out."""
    ledger.client.zadd(f"{JOB}:leases", dict.fromkeys(names, time.time() - 1), xx=True)


def lease_of(ledger: Ledger, name: str = "plan:0") -> float:
    """Return for how many seconds from now a batch is leased."""
    ends: Any = ledger.client.zscore(f"{JOB}:leases", name)
    assert ends is not None
    return float(ends) - time.time()
