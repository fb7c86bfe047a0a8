"""Keys of the fleet that another program damaged are found, named and set aside."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import BrokerDamaged, JobReader
from snapferry.orchestrator.key_repair import repair
from snapferry.orchestrator.notify.records import NotificationLedger
from snapferry.workers.broker.connection import client as broker_client
from snapferry.workers.diagnosis.broker_check import check_redis
from snapferry.workers.ledger import Ledger, ScheduleLedger, UnreadableJob
from snapferry.workers.ledger.damage import DAMAGED, KeyRepair, damaged_keys, shared_damage
from snapferry.workers.ledger.damage.key_types import LONGEST_LOCK_S, SHARED, type_of
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.worker_roster import WorkerRoster
from snapferry.workers.settings.environment import Settings
from tests.unit.ledger.support import request

NAMED = (
    "snapferry:mirror:nightly",
    "snapferry:scrub:weekly",
    "snapferry:scrub:weekly:state",
    "snapferry:scrub:weekly:verified",
    "snapferry:beat:nightly",
    "snapferry:beat:scrub:weekly",
    "snapferry:limits:store:s3://bucket/store",
    "snapferry:pace:rate:store:file:///srv/store",
    "snapferry:reach:139f4b884c09763c920c6940",
    "snapferry:traffic:minutes:0257d7f9012a591a283db3a923365a34",
    "snapferry.copy.gpu",
    "snapferry.copy\x06\x163",
)


def spoil(client: redis.Redis, key: str) -> None:
    """Give *key* a type that it must not have."""
    expected = type_of(key)
    assert expected is not None, key
    client.delete(key)
    if expected.type == "string":
        client.rpush(key, "junk")
    else:
        client.set(key, "junk")


@pytest.mark.parametrize("key", [*SHARED, *NAMED])
def test_a_key_of_a_wrong_type_is_set_aside(key: str, client: redis.Redis) -> None:
    spoil(client, key)
    assert [one.key for one in damaged_keys(client, [key])] == [key]
    assert repair(KeyRepair(client)) == 1
    assert not client.exists(key)
    assert 0 < int(client.ttl(f"{DAMAGED}{key}")) <= 7 * 86400
    assert repair(KeyRepair(client)) == 0


@pytest.mark.parametrize("key", [key for key, found in SHARED.items() if found.expires])
def test_a_lock_that_does_not_expire_is_set_aside(key: str, client: redis.Redis) -> None:
    client.set(key, "forever")
    assert repair(KeyRepair(client)) == 1
    client.set(key, "long", ex=LONGEST_LOCK_S * 2)
    assert repair(KeyRepair(client)) == 1
    client.set(key, "held", ex=60)
    assert repair(KeyRepair(client)) == 0
    assert client.get(key) == "held"


def test_keys_of_jobs_and_of_others_are_left_alone(client: redis.Redis) -> None:
    for key in ("snapferry:job:1", "snapferry:mark", "celery", "other", "_kombu.binding.other"):
        client.set(key, "junk")
    assert repair(KeyRepair(client)) == 0
    assert client.dbsize() == 5


def test_many_keys_are_looked_at_in_several_rounds(client: redis.Redis) -> None:
    with client.pipeline() as pipe:
        for number in range(30_000):
            pipe.set(f"other:{number}", "")
        pipe.set("snapferry:mirror:nightly", "junk")
        pipe.execute()
    keys = KeyRepair(client)
    assert sum(repair(keys) for _ in range(8)) == 1


def test_a_damaged_list_is_named_in_one_line(redis_url: str, client: redis.Redis) -> None:
    jobs = JobReader(Settings.from_environment({"SNAPFERRY_BROKER_URL": redis_url}))
    client.set("snapferry:jobs", "junk")
    with pytest.raises(BrokerDamaged, match="snapferry:jobs"):
        jobs.list(limit=10)
    assert [finding.check for finding in check_redis(redis_url) if finding.check == "broker.keys"]
    assert [str(one.key) for one in shared_damage(client)] == ["snapferry:jobs"]


@pytest.mark.parametrize(
    "key", ["snapferry:orchestrators", "snapferry:workers", "_kombu.binding.snapferry.pidbox"]
)
def test_a_damaged_roster_costs_no_command(key: str, redis_url: str, client: redis.Redis) -> None:
    spoil(client, key)
    jobs = JobReader(Settings.from_environment({"SNAPFERRY_BROKER_URL": redis_url}))
    assert not jobs.announced().complete


def test_the_roster_is_whole_again_after_a_repair(client: redis.Redis) -> None:
    client.set("snapferry:orchestrators", "junk")
    repair(KeyRepair(client))
    roster = OrchestratorRoster(client)
    roster.announce("orchestrator@here")
    assert roster.running() == 1


@pytest.mark.parametrize("key", ["snapferry:jobs", "snapferry:open"])
def test_the_lists_of_jobs_are_made_anew(key: str, ledger: Ledger, client: redis.Redis) -> None:
    ledger.create(request("ended"))
    ledger.cancel("ended")
    before = ledger.job_ids(), ledger.open_jobs()
    assert before == (["ended", "job"], ["job"])
    spoil(client, key)
    client.set("snapferry:job:text", "junk")
    client.hset("snapferry:job:no-number", mapping={"state": "copying", "submitted_at": "nan"})
    assert repair(KeyRepair(client)) == 1
    assert (ledger.job_ids(), ledger.open_jobs()) == before


def test_records_that_are_nested_too_deep_cost_only_themselves(ledger: Ledger, client: redis.Redis) -> None:
    deep = "[" * 100_000
    roster = WorkerRoster(client)
    roster.announce("worker@here", ["snapferry.copy"])
    client.hset("snapferry:workers", "worker@there", deep)
    client.hset("snapferry:parked", "job", deep)
    client.hset("snapferry:job:job:heals", "1", deep)
    client.hset("snapferry:notify:problems", "mirror:nightly", deep)
    assert roster.live("snapferry.copy") == ["worker@here"]
    roster.leave("worker@there")
    assert ParkedJobs(client).all() == []
    assert NotificationLedger(client).problems() == {}
    with pytest.raises(UnreadableJob):
        ledger.neglected("job")


@pytest.mark.parametrize("key", ["snapferry:workers", "snapferry:notify:outbox", "snapferry:mirror:nightly"])
def test_bytes_that_are_no_text_cost_only_their_value(key: str, redis_url: str) -> None:
    with broker_client(redis_url) as patient:
        patient.hset(key, mapping={b"\xff\xfe": b"\xff\xfe", "job": b"\x80", "skipped": b"\xff"})
        assert WorkerRoster(patient).registered() == []
        assert NotificationLedger(patient).waiting() == []
        assert ScheduleLedger(patient, "mirror").record("nightly").skipped == 0


@pytest.mark.parametrize("text", ["junk", "-5", "[[[[", "\xff", "9" * 400, "inf", "\x1b[31m"])
@pytest.mark.parametrize(
    "field", ["kinds", "reasons", "ids", "rows", "source", "destination", "estimate", "order", "unlisted"]
)
def test_a_damaged_field_of_a_record_is_told_in_one_line(
    field: str, text: str, ledger: Ledger, redis_url: str, client: redis.Redis
) -> None:
    client.hset("snapferry:job:job", field, text)
    client.setbit("snapferry:job:job:failed", 0, 1)
    jobs = JobReader(Settings.from_environment({"SNAPFERRY_BROKER_URL": redis_url}))
    for read in (jobs.snapshots, jobs.estimate, jobs.receipt, jobs.store_limits, jobs.unreached):
        with suppress(UnreadableJob):
            read("job")
    with suppress(UnreadableJob):
        list(jobs.failures("job", places=False))
    assert jobs.list(limit=5)


def test_counts_of_failures_that_another_program_wrote_are_left_out(
    ledger: Ledger, client: redis.Redis
) -> None:
    junk: dict[Any, Any] = {
        "\x1b[31m": "1",
        "<b>": "1",
        "KeyMissing": "inf",
        "NotAnObject": "9" * 400,
        "": "3",
        "StoreFault": "-1",
    }
    client.hset("snapferry:job:job:classes", mapping={**junk, "IntegrityError": "2"})
    assert ledger.failed_by_class("job") == {"IntegrityError": 2}
