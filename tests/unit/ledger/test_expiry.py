"""The keys of a job expire together, and take little memory."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import redis

from snapferry.orchestrator.driving.snapshot_rows import final_fields
from snapferry.orchestrator.planning.snapshots import Snapshots, freeze
from snapferry.stores.address import SnapshotId
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import (
    Ledger,
    Repair,
    State,
)
from tests.unit.ledger.support import (
    HEAL_NONE,
    INDEX,
    JOB,
    ONE,
    OPEN,
    THREE,
    TWO,
    address,
    batch,
    deliver,
    found_missing,
    request,
)


def test_every_key_of_a_job_expires(ledger: Ledger, client: redis.Redis) -> None:
    ledger.begin(TWO, "one")
    found_missing(ledger, THREE, [1])
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    ledger.note_retry("job", "plan:2", 10)
    ledger.pause("job", paused=True)
    ledger.begin(THREE, "two")
    ledger.start_driving("job", "me")
    ledger.note_healing("job", 0, turn=1, batches=1)
    ledger.record_group("job", 0, {0: ["published"]})
    ledger.cancel("job")
    deliver(ledger, TWO, failed=[1])
    deliver(ledger, HEAL_NONE, failed=[0])
    ledger.release(TWO, "one", again_in_s=4)
    ledger.note_requeued("job", ["plan:0"])
    ledger.note_repairs("job", [Repair(address(0), "corrupt")])

    parts = (
        "", ":done:plan", ":done:heal-0-1", ":running", ":needed", ":failures", ":leases", ":holders", ":held",
        ":copied", ":failed", ":classes", ":groups", ":heals", ":repairs", ":driver",
    )  # fmt: skip
    found = {str(key) for key in client.scan_iter()} - {INDEX, OPEN}
    assert found == {f"{JOB}{part}" for part in parts}
    assert all(0 < client.ttl(key) <= 3600 for key in found)


PLAN_KEYS = [JOB, f"{JOB}:done:plan"]


@pytest.mark.parametrize(
    ("sign_of_life", "kept"),
    [
        (
            lambda ledger: ledger.begin(THREE, "two"),
            [*PLAN_KEYS, *(f"{JOB}:{part}" for part in ("begun", "leases", "holders"))],
        ),
        (
            lambda ledger: ledger.progress(THREE, "two", objects=1, size_bytes=1),
            [*PLAN_KEYS, *(f"{JOB}:{part}" for part in ("running", "leases", "holders"))],
        ),
        (
            lambda ledger: deliver(ledger, THREE),
            [
                *PLAN_KEYS,
                *(f"{JOB}:{part}" for part in ("needed", "failures", "copied", "failed", "classes", "running")),
            ],
        ),
        (
            lambda ledger: ledger.advance("job", State.COMMITTING),
            [
                *PLAN_KEYS,
                *(
                    f"{JOB}:{part}"
                    for part in (
                        "begun", "needed", "running", "failures", "copied", "failed", "classes", "leases",
                        "holders", "heals", "groups",
                    )
                ),
            ],
        ),
        (lambda ledger: ledger.set_fields("job", batches_handed=3), [JOB]),
    ],
    ids=["begin", "progress", "account", "advance", "note"],
)  # fmt: skip
def test_every_sign_of_life_keeps_a_job_and_what_is_done_of_it_from_expiring(
    ledger: Ledger, client: redis.Redis, sign_of_life: Callable[[Ledger], object], kept: list[str]
) -> None:
    ledger.begin(ONE, "one")
    found_missing(ledger, ONE, [0])
    ledger.progress(ONE, "one", objects=0, size_bytes=1)
    deliver(ledger, TWO, failed=[1])
    ledger.note_healing("job", 0, turn=1, batches=1)
    ledger.record_group("job", 0, {0: ["published"]})
    for key in client.scan_iter("snapferry:job:*"):
        client.expire(key, 60)

    sign_of_life(ledger)

    assert [key for key in kept if client.ttl(key) <= 3500] == []


def memory_of(client: redis.Redis, job_id: str) -> dict[str, int]:
    """Return how many bytes of Redis each key of a job takes."""
    return {
        str(key): int(client.memory_usage(key, samples=0) or 0)
        for key in client.scan_iter(f"snapferry:job:{job_id}*")
    }


def test_a_job_of_a_thousand_snapshots_takes_less_than_100_kb_of_redis(client: redis.Redis) -> None:
    """So that 1,000 such jobs, waiting or ended, fit in 100 MB."""
    ledger = Ledger(client, expires_s=3600)
    ids = [SnapshotId(digest(b"snapshot %d" % number)) for number in range(1000)]
    ledger.create(request(ids=ids))
    queued = memory_of(client, "job")

    random_ = random.Random(1)
    ledger.advance("job", State.PLANNING)
    plan = {"objects_total": 1_000_000, "bytes_total": 10**12, "batches_total": 1000}
    ledger.advance("job", State.COPYING, **plan, **freeze(ledger.spec("job"), Snapshots(ids, "." * len(ids))))
    ended_at = 1_800_000_000.0
    for index in range(len(ids)):
        deliver(ledger, batch(index, *[10**6] * 10, first=1000 * index))
        objects = int(random_.lognormvariate(6, 1.5)) + 1
        shared = random_.randrange(objects)
        present = random_.randrange(objects - shared + 1)
        size_bytes = objects * random_.randrange(1000, 500_000)
        ended_at += 3 * random_.random()
        row = [
            "published",
            objects,
            size_bytes,
            objects - shared - present,
            present,
            shared,
            0,
            round(ended_at, 3),
            "",
        ]
        ledger.record_group("job", index, {index: row})
    ledger.advance("job", State.DONE, **final_fields(ledger, "job"))
    ledger.remove_working_keys("job")
    done = memory_of(client, "job")

    assert sum(queued.values()) < 100_000, queued
    assert sum(done.values()) < 100_000, done


def test_an_orchestrator_that_was_held_up_leaves_nothing_of_a_job_that_has_ended(ledger: Ledger) -> None:
    """Another one took the job over, and ended it, before this one goes on."""
    ledger.advance("job", State.DONE)
    ledger.remove_working_keys("job")
    before = sorted(ledger.client.scan_iter("*"))

    ledger.record_group("job", 0, {0: ["published"]})
    ledger.note_healing("job", 0, turn=1, batches=2)

    assert sorted(ledger.client.scan_iter("*")) == before
