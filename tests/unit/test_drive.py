"""The steps of a job as plain functions: what they hand out is caught and run by hand, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import Retry
from kombu.exceptions import OperationalError

from orchestrator import dispatch, drive
from orchestrator.drive import MAX_TURNS, conclude_job, plan_job
from orchestrator.plan import Batch
from orchestrator.tasks import BROKER_RETRY_S, MAX_BROKER_RETRIES, MAX_RETRIES, run_step
from stores.address import manifest_key, object_key
from stores.errors import AccessDenied, StoreUnavailable
from stores.hashing import digest
from stores.urls import open_store
from tests.sample import assert_published_means_complete, make_store, random_files, tree
from workers.ledger import MAX_STEPS, JobStatus, Ledger, State, UnknownJob
from workers.messages import BatchMessage, JobRequest, StoreRef
from workers.tasks import run_batch


@dataclass
class HandedOut:
    """One call of `hand_out`: what a chord would carry."""

    series: str
    turn: int
    batches: list[Batch]


@dataclass
class Fleet:
    """A job, its ledger, and in place of a queue the list of what was handed out."""

    ledger: Ledger
    request: JobRequest
    handed_out: list[HandedOut] = field(default_factory=list)

    @property
    def status(self) -> JobStatus:
        return self.ledger.status("job")

    @property
    def destination(self) -> Path:
        return Path(self.request.destination.url)

    def plan(self) -> str:
        app: Any = None
        return plan_job(app, self.ledger, "job")

    def conclude(self, turn: int | None = None) -> str:
        app: Any = None
        return conclude_job(app, self.ledger, "job", self.handed_out[-1].turn if turn is None else turn)

    def copy(self, handed_out: HandedOut, *numbers: int) -> None:
        """Run batches as a worker would; all of them if no *numbers* are given."""
        task: Any = SimpleNamespace(request=SimpleNamespace(retries=99))
        for batch in handed_out.batches:
            if not numbers or batch.number in numbers:
                message = BatchMessage(
                    job_id="job", series=handed_out.series, number=batch.number, source=self.request.source,
                    destination=self.request.destination, addresses="".join(batch.objects),
                    sizes=tuple(batch.objects.values()),
                )  # fmt: skip
                run_batch(task, message, self.ledger)

    def remove(self, *addresses: str) -> None:
        """Let objects vanish from the destination, as another program might."""
        for address in addresses:
            (self.destination / object_key(address)).unlink()


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A job of 21 objects in batches of at most 5."""
    snapshot = make_store(tmp_path / "source", random_files(20))
    request = JobRequest(
        job_id="job",
        snapshot_id=snapshot,
        concurrency=None,
        source=StoreRef(url=str(tmp_path / "source")),
        destination=StoreRef(url=str(tmp_path / "destination")),
        batch_objects=5,
        batch_bytes=10**6,
    )
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        fleet = Fleet(Ledger(client, expires_s=3600), request)
        fleet.ledger.create(request)

        def hand_out(app: Any, request: JobRequest, batches: Any, *, series: str, of: int, turn: int) -> None:
            fleet.handed_out.append(HandedOut(series, turn, list(batches)))

        monkeypatch.setattr(drive, "hand_out", hand_out)
        yield fleet


def published(fleet: Fleet) -> bool:
    return (fleet.destination / manifest_key(fleet.request.snapshot_id)).exists()


def test_a_job_is_planned_copied_and_concluded(fleet: Fleet) -> None:
    assert fleet.plan() == "21 objects in 5 batches"
    planned = fleet.status
    fleet.copy(fleet.handed_out[0])
    assert planned.state is State.COPYING
    assert not published(fleet)

    assert fleet.conclude() == "published; 21 copied, 0 present"

    assert fleet.status.state is State.DONE
    assert tree(fleet.destination) == tree(Path(fleet.request.source.url))


def test_the_plan_holds_every_object_once(fleet: Fleet) -> None:
    fleet.plan()

    (handed_out,) = fleet.handed_out
    addresses = [address for batch in handed_out.batches for address in batch.objects]
    with open_store(fleet.request.source.url).read_manifest(fleet.request.snapshot_id) as manifest:
        assert addresses == list(manifest.objects())
    assert (fleet.status.objects_total, fleet.status.batches_total) == (21, 5)
    assert (handed_out.series, handed_out.turn) == ("plan", 0)


def test_a_conclusion_that_comes_early_writes_nothing_and_hands_out_what_is_missing(fleet: Fleet) -> None:
    """A chord may call back early, or a batch may be lost: the ledger knows."""
    fleet.plan()
    fleet.copy(fleet.handed_out[0], 0, 3)

    assert fleet.conclude() == "3 batches are handed out again"

    assert not published(fleet)
    again = fleet.handed_out[1]
    assert (again.series, again.turn, [batch.number for batch in again.batches]) == ("plan", 1, [1, 2, 4])
    assert again.batches == [fleet.handed_out[0].batches[number] for number in (1, 2, 4)]
    fleet.copy(again)
    assert fleet.conclude().startswith("published")


def test_batches_that_never_end_end_the_job(fleet: Fleet) -> None:
    fleet.plan()
    for turn in range(MAX_TURNS - 1):
        assert "handed out again" in fleet.conclude(turn)

    fleet.conclude(MAX_TURNS - 1)

    assert fleet.status.state is State.FAILED
    assert "5 batches never ended" in fleet.status.error
    assert not published(fleet)


def test_a_turn_that_made_progress_is_not_counted(fleet: Fleet) -> None:
    """A fleet that is killed over and over, and gets one batch of 21 done each time, comes to the end all the same."""
    fleet.request = fleet.request.model_copy(update={"batch_objects": 1})
    fleet.ledger._redis.flushall()
    fleet.ledger.create(fleet.request)
    fleet.plan()
    turns = 0
    while not published(fleet):
        turns += 1
        assert turns <= 21
        fleet.copy(HandedOut("plan", 0, fleet.handed_out[-1].batches[:1]))
        words = fleet.conclude()

    assert words == "published; 21 copied, 0 present"
    assert turns == 21 > MAX_TURNS
    assert {handed_out.turn for handed_out in fleet.handed_out} == {0, 1}


def test_turns_without_progress_end_the_job_though_an_earlier_one_made_some(fleet: Fleet) -> None:
    fleet.plan()
    fleet.conclude()
    fleet.copy(fleet.handed_out[-1], 0)
    fleet.conclude()
    assert (fleet.handed_out[-1].turn, fleet.status.missing_before) == (1, 4)
    for turn in range(2, MAX_TURNS):
        assert fleet.conclude() == "4 batches are handed out again"
        assert fleet.handed_out[-1].turn == turn

    fleet.conclude()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith(f"4 batches never ended in {MAX_TURNS} turns")


@pytest.mark.parametrize("state", [State.QUEUED, State.PLANNING])
def test_a_conclusion_before_any_plan_does_nothing(fleet: Fleet, state: State) -> None:
    """No batch is planned then, so none is missing: that does not say that all is done."""
    fleet.ledger.advance("job", state)
    before = fleet.status

    assert fleet.conclude(0) == "there is no plan to conclude"

    assert fleet.status == before
    assert fleet.handed_out == []
    assert not fleet.destination.exists()


def test_a_conclusion_of_a_dry_run_does_nothing(fleet: Fleet) -> None:
    """Whatever sent it: a dry run writes no manifest, though every object be there."""
    make_store(fleet.destination, random_files(20))
    (fleet.destination / manifest_key(fleet.request.snapshot_id)).unlink()
    fleet.request = fleet.request.model_copy(update={"dry_run": True})
    fleet.ledger._redis.flushall()
    fleet.ledger.create(fleet.request)
    fleet.ledger.advance("job", State.COPYING)

    assert fleet.conclude(0) == "there is no plan to conclude"

    assert fleet.status.state is State.COPYING
    assert not published(fleet)


@pytest.mark.parametrize("times", [2, 3])
def test_a_plan_or_a_conclusion_that_runs_again_changes_nothing(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        fleet.plan()
    assert all(one == fleet.handed_out[0] for one in fleet.handed_out)
    for handed_out in fleet.handed_out:
        fleet.copy(handed_out)
    assert fleet.conclude().startswith("published")
    ended = fleet.status

    assert fleet.conclude() == "the job is done already"
    assert fleet.plan() == "the job has ended already"

    assert fleet.status == ended
    assert ended.copied == 21


def test_a_failed_object_keeps_the_manifest_from_being_written_and_the_rest_is_there(fleet: Fleet) -> None:
    victim = digest(random_files(20)["./dir 3/file-00003"])
    (Path(fleet.request.source.url) / object_key(victim)).unlink()
    fleet.plan()
    fleet.copy(fleet.handed_out[0])

    fleet.conclude()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("1 of 21 objects could not be copied; the manifest was not written")
    assert (fleet.status.copied, fleet.status.failed) == (20, 1)
    assert [failure.address for failure in fleet.ledger.failures("job")] == [victim]
    assert not published(fleet)


def test_objects_that_vanished_after_copying_are_copied_again(fleet: Fleet) -> None:
    fleet.plan()
    fleet.copy(fleet.handed_out[0])
    gone = list(fleet.handed_out[0].batches[2].objects)[:3]
    fleet.remove(*gone)

    assert fleet.conclude() == "3 objects were absent and are copied again"

    heal = fleet.handed_out[1]
    assert (heal.series, heal.turn, list(heal.batches[0].objects)) == ("heal-1", 1, gone)
    assert fleet.status.state is State.COPYING
    assert not published(fleet)
    fleet.copy(heal)
    assert fleet.conclude().startswith("published")
    assert (fleet.status.healed, fleet.status.copied, fleet.status.failed) == (3, 21, 0)
    assert fleet.status.objects_settled == 21
    assert_published_means_complete(open_store(fleet.request.destination.url))


def test_an_object_that_vanished_at_both_stores_fails_the_job_and_says_so(fleet: Fleet) -> None:
    fleet.plan()
    fleet.copy(fleet.handed_out[0])
    gone = next(iter(fleet.handed_out[0].batches[0].objects))
    fleet.remove(gone)
    (Path(fleet.request.source.url) / object_key(gone)).unlink()
    fleet.conclude()
    fleet.copy(fleet.handed_out[1])

    fleet.conclude()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("1 of 21 objects could not be copied")
    assert (fleet.status.copied, fleet.status.failed) == (20, 1)
    assert [failure.error for failure in fleet.ledger.failures("job")] == ["ObjectMissing"]


def test_a_destination_that_keeps_losing_objects_ends_the_job(fleet: Fleet) -> None:
    fleet.plan()
    fleet.copy(fleet.handed_out[0])
    gone = next(iter(fleet.handed_out[0].batches[0].objects))
    for _ in range(MAX_TURNS - 1):
        fleet.remove(gone)
        fleet.conclude()
        fleet.copy(fleet.handed_out[-1])
    fleet.remove(gone)

    fleet.conclude()

    assert fleet.status.state is State.FAILED
    assert "something deletes" in fleet.status.error
    assert gone in fleet.status.error
    assert not published(fleet)


def test_a_cancelled_job_writes_no_manifest_though_all_objects_are_there(fleet: Fleet) -> None:
    fleet.plan()
    fleet.copy(fleet.handed_out[0])
    fleet.ledger.cancel("job")

    assert fleet.conclude() == "cancelled"

    assert fleet.status.state is State.CANCELLED
    assert not published(fleet)


def test_a_job_that_is_cancelled_before_its_plan_hands_out_nothing(fleet: Fleet) -> None:
    fleet.ledger.cancel("job")

    assert fleet.plan() == "cancelled"

    assert fleet.handed_out == []
    assert fleet.status.state is State.CANCELLED


def test_a_dry_run_counts_and_writes_nothing(fleet: Fleet) -> None:
    fleet.request = fleet.request.model_copy(update={"job_id": "dry", "dry_run": True})
    fleet.ledger.create(fleet.request)
    app: Any = None

    assert plan_job(app, fleet.ledger, "dry") == "dry run: 21 of 21 objects would be copied"

    status = fleet.ledger.status("dry")
    assert (status.state, status.to_copy, status.present, status.objects_total) == (State.DONE, 21, 0, 21)
    assert status.bytes_to_copy == status.bytes_total == 20 * 512
    assert fleet.handed_out == []
    assert not fleet.destination.exists()


def test_a_plan_makes_the_destination_that_its_workers_will_not_make(fleet: Fleet) -> None:
    fleet.plan()
    assert tree(fleet.destination) == {}
    fleet.destination.rmdir()

    fleet.copy(fleet.handed_out[0])

    assert not fleet.destination.exists()
    assert {failure.error for failure in fleet.ledger.failures("job")} == {"StoreNotFound"}
    assert fleet.status.failed == 21


def test_a_destination_that_cannot_be_made_fails_the_job_before_anything_is_handed_out(fleet: Fleet) -> None:
    fleet.destination.write_text("in the way")

    fleet.plan()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("StoreNotFound: ")
    assert fleet.handed_out == []


@pytest.mark.parametrize(("turn", "pause"), [(0, None), (1, 2), (2, 4), (3, 8), (4, 16), (6, 60), (30, 60)])
def test_a_later_turn_waits_longer_before_it_begins(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, turn: int, pause: int | None
) -> None:
    headers: list[list[Any]] = []
    callbacks: list[Any] = []

    def chord(header: list[Any], *, app: Celery) -> Any:
        headers.append(header)
        return callbacks.append

    monkeypatch.setattr(dispatch, "chord", chord)
    batches = [Batch(number, {digest(b"%d" % number): 1}) for number in range(3)]

    dispatch.hand_out(Celery(), fleet.request, batches, series="plan", of=3, turn=turn)

    (header,), (callback,) = headers, callbacks
    assert [signature.options["countdown"] for signature in header] == [pause] * 3
    assert (callback.task, callback.args) == ("snapferry.commit_snapshot", ("job", turn))
    assert callback.options["link_error"][0].task == "snapferry.commit_snapshot"


def test_what_is_present_is_not_copied_again_but_looked_at(fleet: Fleet) -> None:
    fleet.plan()
    fleet.copy(fleet.handed_out[0], 0, 1)
    fleet.ledger._redis.flushall()
    fleet.ledger.create(fleet.request)
    fleet.handed_out.clear()

    fleet.plan()
    fleet.copy(fleet.handed_out[0])
    fleet.conclude()

    assert (fleet.status.copied, fleet.status.present) == (11, 10)
    assert fleet.status.state is State.DONE


class Task:
    """What a bound Celery task is to `run_step`."""

    def __init__(self, retries: int = 0) -> None:
        self.request = SimpleNamespace(retries=retries, argsrepr="the job's words")

    def retry(
        self,
        *,
        countdown: float,
        exc: Exception,
        throw: bool,
        max_retries: int,
        argsrepr: str,
        kwargsrepr: str,
    ) -> Retry:
        assert (throw, argsrepr, kwargsrepr) == (False, self.request.argsrepr, "")
        assert self.request.retries < max_retries
        return Retry(exc=exc, when=countdown)


def step_of(fleet: Fleet, step: Any, *, retries: int = 0, name: str = "plan") -> str:
    return run_step(Task(retries), fleet.ledger, "job", name, step)


def failing(error: Exception) -> Any:
    def step() -> str:
        raise error

    return step


@pytest.mark.parametrize(("retries", "pause"), [(0, 2), (1, 4), (2, 8)])
def test_a_step_whose_store_gives_no_answer_is_tried_again(fleet: Fleet, retries: int, pause: int) -> None:
    with pytest.raises(Retry) as raised:
        step_of(fleet, failing(StoreUnavailable("s3://b", "", "timed out")), retries=retries)

    assert raised.value.when == pause
    assert fleet.status.state is State.QUEUED


@pytest.mark.parametrize(
    ("retries", "error"),
    [
        (MAX_RETRIES, StoreUnavailable("s3://b", "", "timed out")),
        (0, AccessDenied("s3://b", "", "no permission")),
    ],
)
def test_a_step_that_cannot_go_on_ends_the_job_with_its_reason(
    fleet: Fleet, retries: int, error: AccessDenied | StoreUnavailable
) -> None:
    step_of(fleet, failing(error), retries=retries)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error == f"{type(error).__name__}: {error}"


def test_a_surprise_ends_the_job_too_and_goes_on_to_the_log(fleet: Fleet) -> None:
    with pytest.raises(ZeroDivisionError):
        step_of(fleet, failing(ZeroDivisionError("a bug")))

    assert fleet.status.state is State.FAILED
    assert "unexpected ZeroDivisionError: a bug" in fleet.status.error


def test_a_step_of_an_unknown_job_does_nothing(fleet: Fleet) -> None:
    app: Any = None

    words = run_step(Task(), fleet.ledger, "other", "plan", lambda: plan_job(app, fleet.ledger, "other"))

    assert "gone" in words
    with pytest.raises(UnknownJob):
        fleet.ledger.status("other")
    assert fleet.ledger._redis.keys("*other*") == []


def test_a_job_of_another_version_fails_and_says_so(fleet: Fleet) -> None:
    text = fleet.request.model_dump_json().replace('"version":1', '"version":2')
    fleet.ledger._redis.hset("snapferry:job:job", "request", text)

    step_of(fleet, fleet.plan)

    assert fleet.status.state is State.FAILED
    assert "another version" in fleet.status.error


def test_a_source_without_the_snapshot_fails_the_job_and_makes_no_destination(fleet: Fleet) -> None:
    (Path(fleet.request.source.url) / manifest_key(fleet.request.snapshot_id)).unlink()

    step_of(fleet, fleet.plan)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("ManifestMissing: ")
    assert fleet.handed_out == []
    assert not fleet.destination.exists()


BROKER_TROUBLE = [
    OperationalError("Error 111 connecting to the broker"),
    redis.ConnectionError("Connection refused"),
    redis.TimeoutError("Timeout reading from socket"),
    redis.BusyLoadingError("Redis is loading the dataset in memory"),
]


@pytest.mark.parametrize("trouble", BROKER_TROUBLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("retries", [0, MAX_RETRIES, MAX_BROKER_RETRIES - 1])
def test_a_step_whose_broker_is_away_is_tried_again_for_minutes(
    fleet: Fleet, trouble: Exception, retries: int
) -> None:
    with pytest.raises(Retry) as raised:
        step_of(fleet, failing(trouble), retries=retries)

    assert raised.value.when == BROKER_RETRY_S
    assert fleet.status.state is State.QUEUED
    assert MAX_BROKER_RETRIES * BROKER_RETRY_S >= 300


@pytest.mark.parametrize("trouble", BROKER_TROUBLE, ids=lambda error: type(error).__name__)
def test_a_broker_that_stays_away_ends_the_job_in_the_end(fleet: Fleet, trouble: Exception) -> None:
    with pytest.raises(type(trouble)):
        step_of(fleet, failing(trouble), retries=MAX_BROKER_RETRIES)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error == f"the broker did not take the job's tasks: {trouble}"


def test_a_broker_that_is_away_when_a_step_begins_is_waited_for_as_well(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "begin_step", lambda *_: failing(redis.ConnectionError("refused"))())

    with pytest.raises(Retry) as raised:
        step_of(fleet, fleet.plan)

    assert raised.value.when == BROKER_RETRY_S
    assert fleet.handed_out == []


def test_a_plan_whose_tasks_the_broker_took_in_part_hands_them_out_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_out = drive.hand_out
    monkeypatch.setattr(drive, "hand_out", lambda *_, **__: failing(OperationalError("away"))())
    with pytest.raises(Retry):
        step_of(fleet, fleet.plan)
    monkeypatch.setattr(drive, "hand_out", hand_out)

    assert step_of(fleet, fleet.plan, retries=1) == "21 objects in 5 batches"

    fleet.copy(fleet.handed_out[0])
    assert step_of(fleet, fleet.conclude, name="commit").startswith("published")


def test_a_step_that_takes_its_orchestrators_down_is_given_up_and_not_begun_again(fleet: Fleet) -> None:
    for _ in range(MAX_STEPS):
        fleet.ledger.begin_step("job", "plan")

    words = step_of(fleet, fleet.plan)

    assert words == f"failed: {fleet.status.error}"
    assert fleet.status.state is State.FAILED
    assert f"its plan was begun {MAX_STEPS} times and never ended" in fleet.status.error
    assert fleet.handed_out == []


def test_a_step_that_was_begun_often_but_not_too_often_is_done(fleet: Fleet) -> None:
    for _ in range(MAX_STEPS - 1):
        fleet.ledger.begin_step("job", "plan")

    assert step_of(fleet, fleet.plan) == "21 objects in 5 batches"


@pytest.mark.parametrize(
    "trouble",
    [StoreUnavailable("s3://b", "", "timed out"), OperationalError("away")],
    ids=["store", "broker"],
)
def test_a_step_that_ends_without_success_is_no_sign_of_a_deadly_one(
    fleet: Fleet, trouble: Exception
) -> None:
    for _ in range(2 * MAX_STEPS):
        with pytest.raises(Retry):
            step_of(fleet, failing(trouble))

    assert step_of(fleet, fleet.plan) == "21 objects in 5 batches"
