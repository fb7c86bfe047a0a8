"""The metrics of the whole fleet, asked of a real Redis in which jobs stand in all possible ways."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import redis

from snapferry.orchestrator.reporting.fleet_metrics import ASKED, Figures, FleetCollector, ask_redis, roles_of
from snapferry.workers.app import make_app
from snapferry.workers.ledger import LEASE_S, Ledger, RunEnd, ScrubLedger, ScrubRun, State
from snapferry.workers.messages import (
    BatchMessage,
    JobSpec,
    ScrubMessage,
    ScrubPart,
    StoreRef,
    encode_addresses,
)
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from tests.integration.processes import PATIENCE_S

SOURCE, DESTINATION = StoreRef(url="file:///a"), StoreRef(url="file:///b")
ADDRESSES = [f"{number:064x}" for number in range(4)]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as found:
        yield found


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client, expires_s=3600)


def job(ledger: Ledger, job_id: str, state: State, **fields: str | float) -> None:
    """Bring a job of two snapshots and four objects in two batches to *state*."""
    ids = ["1" * 64, "2" * 64]
    ledger.create(
        JobSpec(
            job_id=job_id,
            snapshots=encode_addresses(ids),
            source=SOURCE,
            destination=DESTINATION,
            batch_objects=2,
            batch_bytes=9,
        )
    )
    if state is not State.QUEUED:
        totals = {"objects_total": 4, "bytes_total": 400, "batches_total": 2, "batches_handed": 2}
        ledger.advance(job_id, state, **(totals | fields))


def batch(job_id: str, number: int) -> BatchMessage:
    return BatchMessage(
        job_id=job_id, series="plan", number=number, source=SOURCE, destination=DESTINATION,
        addresses=encode_addresses(ADDRESSES[2 * number :][:2]), sizes=(100, 100), positions=(2 * number,),
    )  # fmt: skip


def ask(client: redis.Redis, ledger: Ledger) -> dict[str, dict[tuple[str, ...], float]]:
    figures = Figures()
    ask_redis(client, ledger, figures, deadline=time.monotonic() + PATIENCE_S)
    return figures.of


def test_a_fleet_without_jobs_has_zeros_and_no_gaps(client: redis.Redis, ledger: Ledger) -> None:
    found = ask(client, ledger)

    # The workers are asked by the collector, and it says that Redis answered.
    assert found.keys() == ASKED.keys() - {"broker_up", "workers"}
    memory = {name: values.pop(()) for name, values in found.items() if name.startswith("broker_memory")}
    assert 0 < memory["broker_memory_bytes"] < memory["broker_memory_limit_bytes"]
    assert {value for values in found.values() for value in values.values()} == {0}
    assert set(found["jobs"]) == {*((state.value,) for state in State), ("superseded",), ("dismissed",)}
    assert set(found["queue_messages"]) == {(COPY_QUEUE,), (PLAN_QUEUE,)}


def test_jobs_count_by_state_and_what_is_open_adds_up(client: redis.Redis, ledger: Ledger) -> None:
    job(ledger, "queued", State.QUEUED)
    job(ledger, "paused", State.COPYING)
    ledger.pause("paused", paused=True)
    job(ledger, "copying", State.COPYING, published=1)
    job(ledger, "done", State.DONE, published=2)
    job(ledger, "failed", State.FAILED)
    job(ledger, "superseded", State.FAILED)
    client.hset("snapferry:job:superseded", "continued_by", "done")
    job(ledger, "dismissed", State.FAILED)
    ledger.dismiss("dismissed", dismissed=True)
    runs = batch("copying", 0)
    ledger.begin(runs, "me@here")
    ledger.progress(runs, "me@here", objects=1, size_bytes=100)
    waits = batch("copying", 1)
    ledger.begin(waits, "me@here")
    ledger.release(waits, "me@here", again_in_s=8)

    found = ask(client, ledger)

    assert {state: count for (state,), count in found["jobs"].items() if count} == {
        "queued": 1, "copying": 2, "done": 1, "failed": 1, "superseded": 1, "dismissed": 1,
    }  # fmt: skip
    assert found["paused_jobs"] == {(): 1}
    assert found["open_snapshots"] == {("pending",): 5, ("published",): 1, ("trusted",): 0, ("failed",): 0}
    assert (found["backlog_objects"][()], found["backlog_bytes"][()]) == (7, 700)
    assert (found["running_batches"][()], found["retrying_batches"][()]) == (1, 1)
    assert found["expired_leases"] == {(): 0}


def test_a_dead_workers_lease_shows_and_ages_are_those_of_the_oldest(
    client: redis.Redis, ledger: Ledger
) -> None:
    for job_id, submitted, moved in (("old", 5000, 40), ("still", 900, 300), ("paused", 9000, 8000)):
        job(ledger, job_id, State.COPYING)
        now = time.time()
        client.hset(
            f"snapferry:job:{job_id}", mapping={"submitted_at": now - submitted, "moved_at": now - moved}
        )
    client.hset("snapferry:job:paused", "paused", "1")
    ledger.begin(batch("old", 0), "dead@there")
    client.hset("snapferry:job:old", "moved_at", time.time() - 40)
    client.zincrby("snapferry:job:old:leases", -LEASE_S - 1, "plan:0")

    found = ask(client, ledger)

    assert (found["expired_leases"][()], found["running_batches"][()]) == (1, 0)
    assert found["oldest_open_job_age_seconds"][()] == pytest.approx(9000, abs=30)
    assert found["longest_idle_job_seconds"][()] == pytest.approx(300, abs=30)


def test_jobs_whose_record_is_gone_or_of_another_version_are_passed_over(
    client: redis.Redis, ledger: Ledger
) -> None:
    job(ledger, "gone", State.COPYING)
    client.delete("snapferry:job:gone")
    job(ledger, "strange", State.COPYING)
    client.hset("snapferry:job:strange", "state", "dreaming")

    assert set(ask(client, ledger)["jobs"].values()) == {0}


def test_messages_count_on_all_steps_of_priority_and_the_next_one_has_an_age(
    redis_url: str, client: redis.Redis, ledger: Ledger
) -> None:
    app = make_app(Settings(broker_url=redis_url))
    for priority in (0, 3, 9):
        app.send_task("snapferry.copy_batch", args=({},), priority=priority)
    app.send_task("snapferry.plan_job", args=("x",), queue=PLAN_QUEUE)

    first = ask(client, ledger)
    second = ask(client, ledger)

    assert first["queue_messages"] == {(COPY_QUEUE,): 3, (PLAN_QUEUE,): 1}
    for queue in (COPY_QUEUE, PLAN_QUEUE):
        age = first["queue_oldest_message_age_seconds"][queue,]
        assert 0 < age < second["queue_oldest_message_age_seconds"][queue,] < PATIENCE_S
    app.close()


def test_what_takes_too_long_is_given_up(client: redis.Redis, ledger: Ledger) -> None:
    job(ledger, "copying", State.COPYING)

    with pytest.raises(TimeoutError):
        ask_redis(client, ledger, Figures(), deadline=time.monotonic())


def test_a_broker_that_is_away_leaves_one_figure() -> None:
    settings = Settings(broker_url="redis://127.0.0.1:1/0")

    (family,) = FleetCollector(make_app(settings), settings).collect()

    assert [(sample.name, sample.value) for sample in family.samples] == [("snapferry_broker_up", 0)]


def test_roles_are_told_by_the_queues_that_a_member_takes_tasks_from() -> None:
    answers = [
        [{"name": COPY_QUEUE}],
        [{"name": COPY_QUEUE}, {"name": PLAN_QUEUE}],
        [{"name": "another"}],
        [],
    ]

    assert roles_of(answers) == {"worker": 2, "orchestrator": 1}


def test_workers_that_share_a_name_are_counted_one_by_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(broker_url=redis_url)
    app = make_app(settings)
    twins = [{"w@1": [{"name": COPY_QUEUE}]}, {"w@1": [{"name": COPY_QUEUE}]}, {"x@1": {"error": "unknown"}}]
    monkeypatch.setattr(type(app.control), "broadcast", lambda *_, **__: twins)

    (workers,) = [one for one in FleetCollector(app, settings).collect() if one.name == "snapferry_workers"]

    assert {one.labels["role"]: one.value for one in workers.samples} == {"worker": 2, "orchestrator": 0}


def schedule(client: redis.Redis, entry: str, message: object) -> None:
    """Put an entry into the schedule, as RedBeat does."""
    client.zadd("snapferry:beat::schedule", {f"snapferry:beat:{entry}": 1})
    client.hset(f"snapferry:beat:{entry}", "definition", json.dumps({"args": [message]}))


def test_each_scrub_of_the_schedule_has_its_ages_and_findings(client: redis.Redis, ledger: Ledger) -> None:
    message = ScrubMessage(name="backup", store=SOURCE, shares=30, interval=3600)
    schedule(client, "scrub:backup", message.model_dump(mode="json"))
    schedule(client, "scrub:new", message.model_copy(update={"name": "new"}).model_dump(mode="json"))
    for entry in ("backup", "scrub:damaged", "scrub:another"):
        schedule(client, entry, {"name": "x"})
    client.hset("snapferry:beat:scrub:damaged", "definition", "{")
    scrubs = ScrubLedger(client)
    part = ScrubPart(name="backup", shares=30, share=0)
    scrubs.begin_cycle("file:///a", part)
    before = ask(client, ledger)
    time_of = client.hget("snapferry:scrub:backup:state", "began_at")
    client.hset("snapferry:scrub:backup:state", "began_at", float(str(time_of)) - 500)
    scrubs.settle(
        ScrubRun(
            "j", "file:///a", part, part.first, RunEnd.READ, part.next.first, 2, 1, time.time(), tried=True
        )
    )

    found = ask(client, ledger)

    assert found["scrub_period_seconds"] == {("backup",): 108000, ("new",): 108000}
    assert found["scrub_interval_seconds"] == {("backup",): 3600, ("new",): 3600}
    assert before["scrub_last_success_age_seconds"][("backup",)] < 60
    assert 500 < found["scrub_oldest_unverified_seconds"].pop(("backup",)) < 560
    assert found["scrub_last_success_age_seconds"].pop(("backup",)) < 60
    assert not found["scrub_oldest_unverified_seconds"], "a scrub without a state has no age"
    assert found["scrub_findings"] == found["scrub_findings_total"] == {("backup",): 3}
