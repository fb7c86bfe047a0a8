"""The driving of a job: what it hands out is caught and run by hand, in any order; the ledger is on a real Redis."""

from __future__ import annotations

import json
import os
import random
import time
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

from snapferry.orchestrator.driving import abandon, control, dispatch, drive, publish
from snapferry.orchestrator.driving import lost_batches as lost
from snapferry.orchestrator.driving.drive import drive_job
from snapferry.orchestrator.driving.lost_batches import MAX_STALLS, STALL_S
from snapferry.orchestrator.driving.publish import MAX_HEALS
from snapferry.orchestrator.planning import prepare
from snapferry.orchestrator.planning.plan import Batch
from snapferry.orchestrator.reporting.receipt import receipt, snapshot_rows
from snapferry.orchestrator.tasks import BROKER_RETRY_S, MAX_BROKER_RETRIES, MAX_RETRIES, run_step
from snapferry.stores.access import TRUSTED, AccessPolicy
from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.errors import AccessDenied, SourceEmpty, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.runtime.liveness import identity
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import open_store
from snapferry.workers.copying.tasks import MAX_BEGUN, STEP_ASIDE_S, UNREADABLE_S, ObjectsFailed, run_batch
from snapferry.workers.ledger import GRACE_S, MAX_DRIVES, PLAN, JobStatus, Ledger, State, UnknownJob
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.messages import (
    VERSION,
    BatchMessage,
    Budget,
    JobRequest,
    Order,
    Price,
    Prune,
    StoreRef,
    pack,
)
from snapferry.workers.reachability.records import ReachBook
from tests.sample import assert_published_means_complete, fill, make_store, random_files, tree


@dataclass
class HandedOut:
    """One call of `hand_out`: what a chord would carry."""

    series: str
    again: int
    batches: list[Batch]

    @property
    def numbers(self) -> list[int]:
        return [batch.number for batch in self.batches]


@dataclass
class Fleet:
    """A job, its ledger, and in place of a queue the list of what was handed out."""

    ledger: Ledger
    source: Path
    destination: Path
    request: JobRequest
    handed_out: list[HandedOut] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)

    def submit(self, *ids: str, **changed: Any) -> None:
        """Begin anew, with a job of other snapshots."""
        self.ledger._redis.flushall()
        prepare.forget("job")
        self.handed_out.clear()
        self.request = self.request.model_copy(update={"snapshots": pack(ids), **changed})
        self.ledger.create(self.request)

    @property
    def status(self) -> JobStatus:
        return self.ledger.status("job")

    @property
    def snapshot(self) -> str:
        return self.request.snapshot_ids[0]

    @property
    def store(self) -> SnapshotStore:
        return open_store(str(self.destination))

    access: AccessPolicy = TRUSTED

    def drive(self) -> str:
        app: Any = None
        return drive_job(app, self.ledger, "job", self.access)

    def copy(self, handed_out: HandedOut, *numbers: int, worker: str = "w") -> list[str]:
        """Run batches as a worker would; all of them if no *numbers* are given."""
        task: Any = SimpleNamespace(request=SimpleNamespace(retries=99, hostname=worker))
        words = []
        for batch in handed_out.batches:
            if not numbers or batch.number in numbers:
                try:
                    words.append(run_batch(task, self.message(handed_out, batch), self.ledger))
                except ObjectsFailed as failed:
                    words.append(str(failed))
        return words

    def copy_all(self) -> None:
        """Drive and copy until nothing is handed out any more."""
        seen = 0
        self.drive()
        while len(self.handed_out) > seen:
            for handed_out in self.handed_out[seen:]:
                seen += 1
                self.copy(handed_out)
            self.drive()

    def message(self, handed_out: HandedOut, batch: Batch) -> BatchMessage:
        return BatchMessage(
            job_id="job",
            series=handed_out.series,
            number=batch.number,
            source=self.request.source,
            destination=self.request.destination,
            addresses=pack(batch.objects),
            sizes=tuple(batch.objects.values()),
            positions=batch.positions,
        )

    def remove(self, *addresses: str, at: Path | None = None) -> None:
        """Let objects vanish from the destination, as another program might."""
        for address in addresses:
            ((at or self.destination) / object_key(address)).unlink()

    def published(self) -> list[str]:
        return self.store.list_manifest_ids() if self.destination.exists() else []

    def let_time_pass(self, seconds: float) -> None:
        """Let everything of the job look so much older."""
        client = self.ledger._redis
        moved = float(client.hget("snapferry:job:job", "moved_at") or 0)
        client.hset("snapferry:job:job", "moved_at", moved - seconds)
        for name, ends in client.zrange("snapferry:job:job:leases", 0, -1, withscores=True):
            client.zadd("snapferry:job:job:leases", {name: ends - seconds})

    def rows(self) -> list[tuple[str, str]]:
        return [(row.id, row.state) for row in snapshot_rows(self.ledger, "job")]


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A job of 21 objects in batches of at most 5."""
    snapshot = make_store(tmp_path / "source", random_files(20))
    request = JobRequest(
        job_id="job",
        snapshots=pack([snapshot]),
        source=StoreRef(url=str(tmp_path / "source")),
        destination=StoreRef(url=str(tmp_path / "destination")),
        batch_objects=5,
        batch_bytes=10**6,
    )
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        fleet = Fleet(Ledger(client, expires_s=3600), tmp_path / "source", tmp_path / "destination", request)
        fleet.submit(snapshot)

        def hand_out(
            app: Any,
            request: JobRequest,
            batches: Any,
            *,
            series: str,
            of: int,
            snapshots: str,
            again: int = 0,
        ) -> None:
            fleet.handed_out.append(HandedOut(series, again, list(batches)))

        monkeypatch.setattr(drive, "hand_out", hand_out)
        monkeypatch.setattr(publish, "hand_out", hand_out)
        monkeypatch.setattr(lost, "hand_out", hand_out)
        monkeypatch.setattr(drive, "look_after", lambda *words, **_: fleet.looks.append(words[-1]))
        yield fleet
        prepare.forget("job")


def snapshots(fleet: Fleet, count: int, *, shared: int = 20, own: int = 4) -> list[str]:
    """Fill the source with snapshots that have *shared* objects in common and *own* ones each; return their ids."""
    store = open_store(str(fleet.source))
    base = random_files(shared, seed=7)
    ids = []
    for number in range(count):
        random_ = random.Random(1000 + number)
        files = base | {f"./own/{n}": random_.randbytes(100 + number) for n in range(own)}
        ids.append(fill(store, files))
    return ids


def test_a_job_is_planned_copied_and_published(fleet: Fleet) -> None:
    assert fleet.drive() == "1 snapshot, 21 objects, 10.2 kB in 5 batches; 5 batches handed out"
    planned = fleet.status
    fleet.copy(fleet.handed_out[0])
    assert planned.state is State.COPYING
    assert not fleet.published()

    assert fleet.drive() == "1 snapshot published; done"

    assert fleet.status.state is State.DONE
    assert tree(fleet.destination) == tree(fleet.source)


def test_the_plan_holds_every_object_once(fleet: Fleet) -> None:
    fleet.drive()

    (handed_out,) = fleet.handed_out
    addresses = [address for batch in handed_out.batches for address in batch.objects]
    with open_store(str(fleet.source)).read_manifest(fleet.snapshot) as manifest:
        assert addresses == sorted(manifest.objects())
    assert (fleet.status.objects_total, fleet.status.batches_total) == (21, 5)
    assert (handed_out.series, handed_out.again) == (PLAN, 0)


def test_snapshots_that_share_nothing_are_published_one_by_one(fleet: Fleet) -> None:
    ids = snapshots(fleet, 4, shared=0, own=10)
    fleet.submit(*ids)
    fleet.drive()
    seen = []
    for handed_out in list(fleet.handed_out):
        fleet.copy(handed_out)
        fleet.drive()
        seen.append([state for _, state in fleet.rows()])

    assert seen == [
        ["published", "pending", "pending", "pending"],
        ["published", "published", "pending", "pending"],
        ["published", "published", "published", "pending"],
        ["published"] * 4,
    ]
    assert fleet.status.state is State.DONE
    assert sorted(ids) == fleet.published()


def test_a_later_snapshot_is_not_published_before_an_earlier_one_that_it_shares_objects_with(
    fleet: Fleet,
) -> None:
    """Batches end in any order; the first group's are not all done, so nothing of a later group is asked for."""
    ids = snapshots(fleet, 2, shared=20, own=30)
    fleet.submit(*ids)
    fleet.drive()
    fleet.copy(fleet.handed_out[-1])

    fleet.drive()

    assert fleet.published() == []
    fleet.copy_all()
    assert fleet.published() == sorted(ids)


def test_an_object_that_many_snapshots_share_is_copied_and_asked_for_once(fleet: Fleet) -> None:
    ids = snapshots(fleet, 30, shared=40, own=2)
    fleet.submit(*ids)
    fleet.copy_all()

    addresses = [a for handed_out in fleet.handed_out for batch in handed_out.batches for a in batch.objects]
    assert len(addresses) == len(set(addresses)) == 41 + 30 * 2
    assert (fleet.status.copied, fleet.status.state) == (101, State.DONE)
    rows = list(snapshot_rows(fleet.ledger, "job"))
    assert [row.objects for row in rows] == [43] * 30
    assert all(row.objects == row.copied + row.present + row.shared for row in rows)
    assert sum(row.copied for row in rows) == 101


def test_only_so_many_batches_are_queued_at_once_and_the_rest_follows(fleet: Fleet) -> None:
    fleet.submit(fleet.snapshot, window_batches=2)
    fleet.drive()
    assert [handed_out.numbers for handed_out in fleet.handed_out] == [[0], [1]]

    fleet.copy(fleet.handed_out[1])
    fleet.drive()
    assert [handed_out.numbers for handed_out in fleet.handed_out] == [[0], [1], [2]]
    fleet.copy(fleet.handed_out[0])
    fleet.copy_all()

    assert [handed_out.numbers for handed_out in fleet.handed_out] == [[0], [1], [2], [3], [4]]
    assert fleet.status.state is State.DONE


def test_a_look_that_comes_early_writes_nothing_and_hands_out_nothing_again(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 3)

    assert fleet.drive() == "nothing to do yet"

    assert not fleet.published()
    assert len(fleet.handed_out) == 1


def test_batches_that_are_nowhere_are_handed_out_again_exactly(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 3)
    fleet.let_time_pass(STALL_S + 1)

    assert fleet.drive() == "3 batches handed out again"

    again = fleet.handed_out[1]
    assert (again.series, again.numbers) == (PLAN, [1, 2, 4])
    assert again.batches == [fleet.handed_out[0].batches[number] for number in (1, 2, 4)]
    fleet.copy(again)
    assert fleet.drive() == "1 snapshot published; done"


def test_a_batch_whose_worker_died_is_handed_out_again_as_soon_as_its_lease_is_over(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 1, 2)
    fleet.ledger.begin(fleet.message(fleet.handed_out[0], fleet.handed_out[0].batches[3]), "dead#1@w")
    assert fleet.drive() == "nothing to do yet"
    fleet.ledger._redis.zadd("snapferry:job:job:leases", {"plan:3": 1})

    assert fleet.drive() == "1 batch handed out again"
    assert fleet.drive() == "nothing to do yet"

    assert fleet.handed_out[1].numbers == [3]


def test_a_batch_that_waits_for_its_retry_is_not_lost(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 1, 2, 3)
    fleet.ledger.note_retry("job", "plan:4", 60)
    fleet.let_time_pass(STALL_S + 1)

    assert fleet.drive() == "nothing to do yet"


def test_a_batch_that_nobody_tries_again_is_handed_out_again_a_bounded_number_of_times(
    fleet: Fleet,
) -> None:
    """Its worker gave it back to be tried again, and the message is lost; or no worker can read it."""
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 1, 2, 3)
    for _ in range(MAX_STALLS):
        fleet.ledger.note_retry("job", "plan:4", 10)
        fleet.let_time_pass(10 + GRACE_S + 1)
        assert fleet.drive() == "1 batch handed out again"
        assert fleet.handed_out[-1].numbers == [4]
    fleet.ledger.note_retry("job", "plan:4", 10)
    fleet.let_time_pass(10 + GRACE_S + 1)

    assert "1 batch given up" in fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.failed == len(fleet.handed_out[0].batches[4].objects)


def test_batches_that_never_end_end_the_job(fleet: Fleet) -> None:
    fleet.drive()
    for _ in range(MAX_STALLS):
        fleet.let_time_pass(STALL_S + 1)
        assert "handed out again" in fleet.drive()
    assert len(fleet.handed_out) == 1 + MAX_STALLS

    fleet.let_time_pass(STALL_S + 1)
    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.failed == fleet.status.objects_settled == fleet.status.objects_total
    reason = f"its batch was handed out {1 + MAX_STALLS} times and no worker began it; see the workers' logs"
    assert {failed.failure.detail for failed in fleet.ledger.failures("job")} == {reason}
    assert not fleet.published()


def test_a_stall_after_some_progress_is_counted_from_one(fleet: Fleet) -> None:
    """A fleet that is killed over and over, and gets one batch done each time, comes to the end all the same."""
    fleet.submit(fleet.snapshot, batch_objects=1)
    fleet.drive()
    turns = 0
    while not fleet.published():
        turns += 1
        assert turns <= 22
        fleet.copy(HandedOut(PLAN, 0, fleet.handed_out[-1].batches[:1]))
        fleet.let_time_pass(STALL_S + 1)
        fleet.drive()

    assert turns == 21 > MAX_STALLS


def test_a_paused_job_hands_out_nothing_and_what_was_queued_is_held(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0)
    fleet.ledger.pause("job", paused=True)

    assert fleet.copy(fleet.handed_out[0], 1, 2) == ["held: the job is paused"] * 2
    fleet.let_time_pass(STALL_S + 1)
    assert fleet.drive() == "the job is paused"
    assert len(fleet.handed_out) == 1

    fleet.ledger.pause("job", paused=False)
    assert fleet.drive() == "2 batches handed out again"
    assert fleet.handed_out[1].numbers == [1, 2], "the others are in the queue still"


def test_after_a_pause_what_was_held_goes_on_at_once(fleet: Fleet) -> None:
    fleet.drive()
    fleet.ledger.pause("job", paused=True)
    fleet.copy(fleet.handed_out[0], 1, 2)
    fleet.ledger.pause("job", paused=False)

    assert fleet.drive() == "2 batches handed out again"

    assert fleet.handed_out[1].numbers == [1, 2]


def test_a_job_that_is_paused_before_its_plan_is_planned_when_it_goes_on(fleet: Fleet) -> None:
    fleet.ledger.pause("job", paused=True)
    assert fleet.drive() == "paused before its plan"
    fleet.ledger.pause("job", paused=False)

    fleet.copy_all()

    assert fleet.status.state is State.DONE


@pytest.mark.parametrize("wish", ["cancel", "pause", "end"])
def test_planning_stops_when_nobody_wants_it_any_more(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    """As in a manifest of hours: whatever is read or waited for calls `checkpoint`."""

    def plans_for_hours(*_: Any) -> Any:
        if wish == "cancel":
            fleet.ledger.cancel("job")
        elif wish == "pause":
            fleet.ledger.pause("job", paused=True)
        else:
            fleet.ledger.advance("job", State.FAILED)
        while True:
            checkpoint()
            time.sleep(0.001)

    with monkeypatch.context() as patched:
        patched.setattr(drive, "RENEW_S", 0.01)
        patched.setattr(drive, "prepare", plans_for_hours)
        said = fleet.drive()

    wanted = {"cancel": "cancelled", "pause": "paused before its plan", "end": "the job is failed already"}
    assert said == wanted[wish]
    if wish == "pause":
        fleet.ledger.pause("job", paused=False)
        fleet.copy_all()
        assert fleet.status.state is State.DONE


def test_a_step_that_does_not_stop_is_let_go(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a read from an NFS server that is gone. Another orchestrator cancels the job meanwhile."""
    said = []

    def hangs(*_: Any) -> Any:
        fleet.ledger.cancel("job")
        deadline = time.monotonic() + 60
        while fleet.ledger.driven("job"):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        said.append(fleet.drive())
        checkpoint()

    monkeypatch.setattr(drive, "RENEW_S", 0.01)
    monkeypatch.setattr(control, "STUCK_S", 0.05)
    monkeypatch.setattr(drive, "prepare", hangs)
    ended = []
    monkeypatch.setattr(shutdown, "end_stuck_process", lambda: ended.append(True))

    assert fleet.drive() == "the job is cancelled already"

    assert said == ["cancelled"]
    assert ended
    assert fleet.looks


def test_a_job_that_fails_leaves_no_object_unsettled(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0)
    copied = fleet.status.copied

    drive.fail_job(fleet.ledger, "job", "the reason")

    status = fleet.status
    assert (status.state, status.error) == (State.FAILED, "the reason")
    assert status.objects_settled == status.objects_total
    assert (status.copied, status.failed) == (copied, status.objects_total - copied)
    assert all("the reason" in failed.failure.detail for failed in fleet.ledger.failures("job"))


def test_a_job_that_fails_without_its_plan_at_hand_can_be_resumed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.drive()
    monkeypatch.setattr(abandon, "recalled", lambda *_: None)

    drive.fail_job(fleet.ledger, "job", "the reason")

    assert (fleet.status.state, fleet.status.failed) == (State.FAILED, 0)


@pytest.mark.parametrize("times", [1, 7])
def test_a_worker_that_dies_in_its_batch_is_no_stall(fleet: Fleet, times: int) -> None:
    """Its lease runs out after as long as it takes to believe that nothing of a job moves."""
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 1, 2, 3)
    last = fleet.message(fleet.handed_out[0], fleet.handed_out[0].batches[4])
    for turn in range(times):
        fleet.ledger.begin(last, f"dead#{turn}@w")
        fleet.let_time_pass(STALL_S + 1)
        assert fleet.drive() == "1 batch handed out again"

    assert fleet.ledger.standing("job").stalls == 0
    fleet.copy(fleet.handed_out[0], 4)
    assert fleet.drive() == "1 snapshot published; done"


def test_a_batch_that_ends_every_worker_is_given_up(fleet: Fleet) -> None:
    """Even the worker that would give it up."""
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 1, 2, 3)
    last = fleet.message(fleet.handed_out[0], fleet.handed_out[0].batches[4])
    for turn in range(MAX_BEGUN + 2):
        fleet.ledger.begin(last, f"dead#{turn}@w", instead_of=f"dead#{turn - 1}@w")
    fleet.let_time_pass(STALL_S + 1)

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.failed == len(last.sizes)


@pytest.mark.parametrize("times", [2, 3])
def test_a_look_at_any_time_changes_nothing(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        fleet.drive()
    assert len(fleet.handed_out) == 1
    fleet.copy(fleet.handed_out[0])
    fleet.drive()
    ended = fleet.status

    assert fleet.drive() == "the job is done already"

    assert fleet.status == ended
    assert ended.copied == 21


def test_another_orchestrator_plans_the_same(fleet: Fleet) -> None:
    """What is remembered of a plan is a help and nothing else."""
    ids = snapshots(fleet, 6)
    fleet.submit(*ids, window_batches=2)
    fleet.drive()
    while not fleet.status.state.final:
        prepare.forget("job")
        for handed_out in list(fleet.handed_out):
            fleet.copy(handed_out)
        fleet.drive()

    assert fleet.status.state is State.DONE
    assert fleet.published() == sorted(ids)
    assert fleet.status.copied == fleet.status.objects_total == 21 + 6 * 4


def test_a_failed_object_keeps_only_the_snapshots_that_name_it_from_being_published(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    victim = digest(random.Random(1002).randbytes(102))
    fleet.remove(victim, at=fleet.source)
    fleet.submit(*ids)

    fleet.copy_all()

    status = fleet.status
    assert status.state is State.FAILED
    assert status.error == (
        "1 of 5 snapshots are not published: 1 of 41 objects could not be copied. The other 4 are."
    )
    assert fleet.published() == sorted(set(ids) - {ids[2]})
    assert (status.snapshots_published, status.snapshots_failed, status.failed) == (4, 1, 1)
    assert [failed.failure.address for failed in fleet.ledger.failures("job")] == [victim]
    assert_published_means_complete(fleet.store)
    row = list(snapshot_rows(fleet.ledger, "job"))[2]
    assert (row.state, row.missing, row.reason) == ("failed", 1, "1 of its objects could not be copied")


def test_an_object_that_all_share_and_that_fails_holds_up_all(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    fleet.remove(digest(b""), at=fleet.source)
    fleet.submit(*ids)

    fleet.copy_all()

    assert fleet.published() == []
    assert (fleet.status.state, fleet.status.snapshots_failed) == (State.FAILED, 5)


@pytest.mark.parametrize("damage", ["missing", "corrupt", "syntax"])
def test_a_manifest_that_cannot_be_used_stops_no_other(fleet: Fleet, damage: str) -> None:
    ids = snapshots(fleet, 3)
    bad = ids[1]
    path = fleet.source / manifest_key(bad)
    if damage == "missing":
        path.unlink()
    elif damage == "corrupt":
        path.write_bytes(b"F 644 nonsense\n")
    else:
        text = b"F 644 nonsense\n"
        bad = ids[1] = digest(text)
        path = fleet.source / manifest_key(bad)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    fleet.submit(*ids)

    fleet.copy_all()

    assert fleet.published() == sorted(set(ids) - {bad})
    assert fleet.status.state is State.FAILED
    assert "1 of 3 snapshots are not published: 1 manifest could not be read" in fleet.status.error
    assert fleet.rows()[1] == (bad, "failed")
    kinds = {"missing": "ManifestMissing", "corrupt": "IntegrityError", "syntax": "ManifestSyntaxError"}
    assert list(snapshot_rows(fleet.ledger, "job"))[1].reason.startswith(kinds[damage])


def test_a_failed_object_keeps_the_manifest_from_being_written_and_the_rest_is_there(fleet: Fleet) -> None:
    victim = digest(random_files(20)["./dir 3/file-00003"])
    fleet.remove(victim, at=fleet.source)

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("1 of 21 objects could not be copied; the manifest was not written")
    assert (fleet.status.copied, fleet.status.failed) == (20, 1)
    assert not fleet.published()


def test_objects_that_vanished_after_copying_are_copied_again(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0])
    gone = list(fleet.handed_out[0].batches[2].objects)[:3]
    fleet.remove(*gone)

    fleet.drive()

    heal = fleet.handed_out[1]
    assert (heal.series, heal.again, list(heal.batches[0].objects)) == ("heal-0-1", 1, gone)
    assert fleet.status.state is State.COPYING
    assert not fleet.published()
    assert fleet.drive() == "healing 1 group"
    fleet.copy(heal)
    assert fleet.drive() == "1 snapshot published; done"
    assert (fleet.status.healed, fleet.status.copied, fleet.status.failed) == (3, 21, 0)
    assert fleet.status.objects_settled == 21
    assert_published_means_complete(fleet.store)


def test_of_a_group_those_that_are_whole_are_published_and_the_others_healed(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    fleet.submit(*ids)
    fleet.drive()
    for handed_out in fleet.handed_out:
        fleet.copy(handed_out)
    fleet.remove(digest(random.Random(1002).randbytes(102)))

    fleet.drive()

    assert fleet.published() == sorted(set(ids) - {ids[2]})
    fleet.copy(fleet.handed_out[-1])
    fleet.drive()
    assert fleet.status.state is State.DONE


def test_a_healing_that_is_lost_is_made_up_for(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0])
    fleet.remove(*list(fleet.handed_out[0].batches[2].objects)[:3])
    fleet.drive()
    fleet.let_time_pass(STALL_S + 1)

    fleet.drive()

    assert [handed_out.series for handed_out in fleet.handed_out] == [PLAN, "heal-0-1", "heal-0-2"]
    fleet.copy(fleet.handed_out[-1])
    fleet.drive()
    assert fleet.status.state is State.DONE


def test_an_object_that_vanished_at_both_stores_fails_the_job_and_says_so(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0])
    gone = next(iter(fleet.handed_out[0].batches[0].objects))
    fleet.remove(gone)
    fleet.remove(gone, at=fleet.source)
    fleet.drive()
    fleet.copy(fleet.handed_out[1])

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("1 of 21 objects could not be copied")
    assert (fleet.status.copied, fleet.status.failed) == (20, 1)
    assert [failed.failure.error for failed in fleet.ledger.failures("job")] == ["ObjectMissing"]


def test_a_destination_that_keeps_losing_objects_ends_the_job(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0])
    gone = next(iter(fleet.handed_out[0].batches[0].objects))
    for _ in range(MAX_HEALS):
        fleet.remove(gone)
        fleet.drive()
        fleet.copy(fleet.handed_out[-1])
    fleet.remove(gone)

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert "something deletes" in fleet.status.error
    assert gone in fleet.status.error
    assert not fleet.published()


def test_a_cancelled_job_writes_no_manifest_though_all_objects_are_there(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0])
    fleet.ledger.cancel("job")

    assert fleet.drive() == "cancelled"

    assert fleet.status.state is State.CANCELLED
    assert fleet.status.objects_settled == 21
    assert not fleet.published()


def test_a_job_is_cancelled_only_when_nothing_of_it_runs_any_more(fleet: Fleet) -> None:
    fleet.drive()
    message = fleet.message(fleet.handed_out[0], fleet.handed_out[0].batches[3])
    fleet.ledger.begin(message, "somebody#1@w")
    fleet.ledger.cancel("job")

    assert fleet.drive() == "cancelling; 1 batch still on their way"
    assert (fleet.status.state, fleet.status.cancelling, fleet.looks) == (State.COPYING, True, ["cancelling"])
    fleet.ledger.release(message, "somebody#1@w")

    assert fleet.drive() == "cancelled"


def test_a_job_that_is_cancelled_before_its_plan_hands_out_nothing(fleet: Fleet) -> None:
    fleet.ledger.cancel("job")

    assert fleet.drive() == "the job is cancelled already"

    assert fleet.handed_out == []


def test_a_dry_run_counts_and_writes_nothing(fleet: Fleet) -> None:
    fleet.submit(fleet.snapshot, dry_run=True)

    assert fleet.drive() == "dry run: 21 of 21 objects would be copied"

    estimate = estimate_of(fleet)
    assert fleet.status.state is State.DONE
    assert estimate["objects"] == {"total": 21, "present": 0, "to_copy": 21}
    assert estimate["bytes"] == {"total": 20 * 512, "to_copy": 20 * 512}
    assert (estimate["batches"], estimate["cost"], estimate["requests"]) == (
        5,
        None,
        {"source": {}, "destination": {}},
    )
    assert fleet.handed_out == []
    assert not fleet.destination.exists()


def estimate_of(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.ledger.field("job", "estimate"))
    return found


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            {"max_objects": 20},
            "over budget: 21 objects to copy, more than --max-objects 20. Nothing was written.",
        ),
        ({"max_bytes": 10_239}, "10.2 kB to copy, more than --max-bytes 10,239"),
        (
            {"max_objects": 1, "max_bytes": 1},
            "more than --max-objects 1; 10.2 kB to copy, more than --max-bytes 1",
        ),
    ],
)
def test_a_job_above_its_budget_is_refused_and_writes_nothing(
    fleet: Fleet, limits: dict[str, int], said: str
) -> None:
    fleet.submit(fleet.snapshot, budget=Budget(**limits))

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert said in fleet.status.error
    assert fleet.handed_out == []
    assert not fleet.destination.exists()


def test_a_job_within_its_budget_is_done_and_what_is_present_costs_nothing_of_it(fleet: Fleet) -> None:
    files = dict(list(random_files(20).items())[:10])
    make_store(fleet.destination, files)
    fleet.submit(
        fleet.snapshot,
        budget=Budget(max_objects=11, max_bytes=6000, max_cost=0.0, prices=(Price(store="s3:"),)),
    )

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.copied) == (State.DONE, 11)


def test_a_snapshot_whose_manifest_is_trusted_costs_nothing_and_is_not_healed(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    fleet.submit(*ids[:2])
    fleet.copy_all()
    lost = digest(random.Random(1000).randbytes(100))
    fleet.remove(lost)
    fleet.submit(*ids, trust_manifest=True)

    fleet.copy_all()

    assert [state for _, state in fleet.rows()] == ["trusted", "trusted", "published"]
    assert (fleet.status.state, fleet.status.snapshots_trusted) == (State.DONE, 2)
    assert fleet.status.objects_total == 25
    assert (fleet.status.copied, fleet.status.present) == (4, 21)
    assert not fleet.store.has_object(lost)


def test_a_published_snapshot_that_lost_objects_is_healed_by_default(fleet: Fleet) -> None:
    ids = snapshots(fleet, 2)
    fleet.submit(*ids)
    fleet.copy_all()
    lost = digest(random.Random(1000).randbytes(100))
    fleet.remove(lost)
    fleet.submit(*ids)

    fleet.copy_all()

    assert (fleet.status.copied, fleet.status.present) == (1, 28)
    assert_published_means_complete(fleet.store)


def test_every_snapshot_of_the_source_is_brought_the_newest_first(fleet: Fleet) -> None:
    ids = [fleet.snapshot, *snapshots(fleet, 3)]
    for age, snapshot_id in enumerate(ids):
        os.utime(fleet.source / manifest_key(snapshot_id), (10**9 - age, 10**9 - age))
    fleet.submit(everything=True, order=Order.NEWEST)

    fleet.copy_all()

    assert [snapshot_id for snapshot_id, _ in fleet.rows()] == ids
    assert fleet.status.snapshots_total == fleet.status.snapshots_published == 4


def test_the_smallest_snapshots_are_brought_first(fleet: Fleet) -> None:
    store = open_store(str(fleet.source))
    ids = [fill(store, {"./x": bytes(size)}) for size in (300, 100, 200)]
    fleet.submit(*ids, order=Order.SMALLEST)

    fleet.copy_all()

    assert [snapshot_id for snapshot_id, _ in fleet.rows()] == [ids[1], ids[2], ids[0]]


def test_a_job_of_no_snapshot_is_done_at_once(fleet: Fleet) -> None:
    fleet.submit()

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.snapshots_total) == (State.DONE, 0)


def test_a_retry_copies_just_what_failed_and_publishes_what_becomes_whole(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    bad = [random.Random(1000 + n).randbytes(100 + n) for n in (1, 3)]
    for data in bad:
        fleet.remove(digest(data), at=fleet.source)
    fleet.submit(*ids)
    fleet.copy_all()
    assert fleet.status.snapshots_failed == 2
    for data in bad:
        open_store(str(fleet.source)).put_object(digest(data), data)
    first = fleet.request
    retry = first.model_copy(
        update={"job_id": "again", "retries": "job", "snapshots": pack([ids[1], ids[3]])}
    )
    fleet.ledger.create(retry)
    app: Any = None

    drive_job(app, fleet.ledger, "again")
    (handed_out,) = fleet.handed_out[-1:]
    assert sorted(a for batch in handed_out.batches for a in batch.objects) == sorted(map(digest, bad))
    for batch in handed_out.batches:
        message = fleet.message(handed_out, batch).model_copy(update={"job_id": "again"})
        task: Any = SimpleNamespace(request=SimpleNamespace(retries=0, hostname="w"))
        run_batch(task, message, fleet.ledger)
    drive_job(app, fleet.ledger, "again")

    assert fleet.ledger.status("again").state is State.DONE
    assert fleet.ledger.status("again").objects_total == 2
    assert fleet.published() == sorted(ids)


def test_a_mirror_deletes_what_the_source_does_not_have_after_all_is_there(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.submit(fleet.snapshot, prune=Prune())
    fleet.drive()
    assert fleet.published() == [old]

    fleet.copy_all()
    for handed_out in fleet.handed_out:
        fleet.copy(handed_out)
    fleet.drive()

    assert fleet.published() == [fleet.snapshot]
    assert (fleet.status.state, fleet.status.deleted) == (State.DONE, 1)
    assert receipt(fleet.ledger, "job")["deleted"] == [old]
    assert fleet.store.has_object(digest(b"old"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Prune(max_delete=1), "--delete would delete 2 manifests, more than --max-delete 1"),
        (Prune(max_delete=0), "--delete would delete 2 manifests, more than --max-delete 0"),
    ],
)
def test_a_mirror_that_would_delete_too_much_deletes_nothing_and_publishes_all(
    fleet: Fleet, options: Prune, said: str
) -> None:
    old = [make_store(fleet.destination, {"./old": b"old %d" % n}) for n in range(2)]
    fleet.submit(fleet.snapshot, prune=options)

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert said in fleet.status.error
    assert fleet.status.error.startswith("all snapshots are published; nothing was deleted")
    assert fleet.published() == sorted([*old, fleet.snapshot])


@pytest.mark.parametrize("force", [False, True])
def test_a_mirror_of_an_empty_source_deletes_only_if_forced(fleet: Fleet, force: bool) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, prune=Prune(force=force), allow_empty_source=True)

    fleet.copy_all()

    assert fleet.published() == ([] if force else [old])
    assert fleet.status.state is (State.DONE if force else State.FAILED)
    if not force:
        assert "the source lists no snapshot at all" in fleet.status.error


@pytest.mark.parametrize("prune", [None, Prune(), Prune(force=True)])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_source_without_any_manifest_is_no_empty_source_unless_that_is_said(
    fleet: Fleet, prune: Prune | None, dry_run: bool
) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    # Its objects are still there.
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, prune=prune, dry_run=dry_run)

    with pytest.raises(SourceEmpty) as raised:
        fleet.drive()

    assert raised.value.store == f"file://{fleet.source}"
    assert "--allow-empty-source" in str(raised.value)
    assert fleet.published() == [old]


def test_a_source_that_may_be_empty_is_a_job_with_nothing_to_do(fleet: Fleet) -> None:
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, allow_empty_source=True)

    fleet.copy_all()

    assert fleet.status.state is State.DONE


def test_a_mirror_deletes_nothing_if_a_snapshot_failed(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.remove(digest(b""), at=fleet.source)
    fleet.submit(fleet.snapshot, prune=Prune())

    fleet.copy_all()

    assert fleet.published() == [old]
    assert fleet.status.state is State.FAILED


def test_a_mirror_that_was_cut_off_while_it_deleted_accounts_for_all_that_it_deleted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [make_store(fleet.destination, {"./old": b"old %d" % n}) for n in range(3)]
    fleet.submit(fleet.snapshot, prune=Prune())
    delete = SnapshotStore.delete_manifest
    calls: list[str] = []

    def breaks_off(self: SnapshotStore, snapshot_id: str) -> None:
        calls.append(snapshot_id)
        if len(calls) == 2:
            raise StoreUnavailable(self.label, snapshot_id, "timed out")
        delete(self, snapshot_id)

    monkeypatch.setattr(SnapshotStore, "delete_manifest", breaks_off)
    with pytest.raises(StoreUnavailable):
        fleet.copy_all()

    fleet.drive()

    assert fleet.status.deleted == 3
    assert receipt(fleet.ledger, "job")["deleted"] == sorted(old)
    assert fleet.published() == [fleet.snapshot]


def test_a_mirror_without_the_right_to_delete_says_what_is_left(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(fleet.destination, {"./old": b"old"})
    fleet.submit(fleet.snapshot, prune=Prune())

    def refuse(self: SnapshotStore, snapshot_id: str) -> None:
        raise AccessDenied(self.label, snapshot_id, "no permission")

    monkeypatch.setattr(SnapshotStore, "delete_manifest", refuse)
    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith(
        "all snapshots are published; 1 manifests that the source does not have"
    )
    assert fleet.snapshot in fleet.published()


def test_a_dry_run_of_a_mirror_lists_what_it_would_delete(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.submit(fleet.snapshot, prune=Prune(max_delete=0), dry_run=True)

    fleet.drive()

    assert estimate_of(fleet)["delete"] == [old]
    assert "more than --max-delete 0" in estimate_of(fleet)["delete_refused"]
    assert fleet.published() == [old]


def test_a_source_that_loses_a_manifest_while_the_job_runs_costs_that_snapshot(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    fleet.submit(*ids)
    fleet.drive()
    (fleet.source / manifest_key(ids[1])).unlink()

    fleet.copy_all()
    for handed_out in fleet.handed_out:
        fleet.copy(handed_out)
    fleet.drive()

    assert fleet.published() == sorted([ids[0], ids[2]])
    assert fleet.status.state is State.FAILED
    assert "ManifestMissing" in list(snapshot_rows(fleet.ledger, "job"))[1].reason
    assert fleet.status.error.startswith("1 of 3 snapshots are not published: ManifestMissing: ")


def test_a_source_that_changed_so_that_the_plan_is_lost_ends_the_job_with_that_reason(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    fleet.submit(*ids)
    fleet.drive()
    (fleet.source / manifest_key(ids[1])).unlink()
    prepare.forget("job")

    step_of(fleet, fleet.drive)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("the source changed while the job ran: ")
    assert ids[1] in fleet.status.error


def test_a_plan_makes_the_destination_that_its_workers_will_not_make(fleet: Fleet) -> None:
    fleet.drive()
    assert tree(fleet.destination) == {}
    fleet.destination.rmdir()
    # As when no worker of the fleet has the mount; before that is known the batch is parked.
    ReachBook(fleet.ledger.client).give_up("job", "no live worker can reach both stores")

    fleet.copy(fleet.handed_out[0])

    assert not fleet.destination.exists()
    assert {failed.failure.error for failed in fleet.ledger.failures("job")} == {"StoreNotFound"}
    assert fleet.status.failed == 21


def test_a_destination_that_cannot_be_made_fails_the_job_before_anything_is_handed_out(fleet: Fleet) -> None:
    fleet.destination.write_text("in the way")

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("StoreNotFound: ")
    assert fleet.handed_out == []


@pytest.mark.parametrize(("again", "pause"), [(0, None), (1, 2), (2, 4), (3, 8), (4, 16), (6, 16), (30, 16)])
def test_what_was_handed_out_in_vain_waits_longer_before_it_begins(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, again: int, pause: int | None
) -> None:
    headers: list[list[Any]] = []
    callbacks: list[Any] = []

    def chord(header: list[Any], *, app: Celery) -> Any:
        headers.append(header)
        return callbacks.append

    monkeypatch.setattr(dispatch, "chord", chord)
    batches = [Batch.of(number, {digest(b"%d" % number): 1}, (number,)) for number in range(3)]

    dispatch.hand_out(Celery(), fleet.request, batches, series="plan", of=3, snapshots="95ff19…", again=again)

    (header,), (callback,) = headers, callbacks
    assert [signature.options["countdown"] for signature in header] == [pause] * 3
    assert [signature.options["argsrepr"] for signature in header] == [
        f"job job · 95ff19… · batch {n}/3 · 1 object · 1 B" for n in (1, 2, 3)
    ]
    assert (callback.task, callback.args) == ("snapferry.commit_snapshots", ("job",))
    assert callback.options["link_error"][0].task == "snapferry.commit_snapshots"


def test_what_is_present_is_not_copied_again_but_looked_at(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.handed_out[0], 0, 1)
    fleet.submit(fleet.snapshot)

    fleet.copy_all()

    assert (fleet.status.copied, fleet.status.present) == (11, 10)
    assert fleet.status.state is State.DONE


def test_a_look_while_another_looks_is_left_to_that_one_and_made_up_for(fleet: Fleet) -> None:
    fleet.drive()
    assert fleet.ledger.start_driving("job", f"{identity()}#another") == 1
    fleet.copy(fleet.handed_out[0])

    assert fleet.drive() == "another orchestrator is at it"
    assert not fleet.published()

    assert fleet.ledger.stop_driving("job", f"{identity()}#another"), "it is told to look again"


def test_the_place_of_an_orchestrator_that_died_on_this_machine_is_taken_at_once(fleet: Fleet) -> None:
    machine = identity().split("-")[0]
    fleet.ledger.start_driving("job", f"{machine}-999999999-abc#1")

    assert fleet.drive().endswith("5 batches handed out")


def test_a_job_that_takes_its_orchestrators_down_is_given_up(fleet: Fleet) -> None:
    machine = identity().split("-")[0]
    for number in range(MAX_DRIVES):
        fleet.ledger.start_driving(
            "job", f"{machine}-999999999-abc#{number}", instead_of=fleet.ledger.driver("job")
        )

    words = fleet.drive()

    assert words == f"failed: {fleet.status.error}"
    assert fleet.status.state is State.FAILED
    assert f"its orchestrator died {MAX_DRIVES} times" in fleet.status.error
    assert fleet.handed_out == []


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

    def signature_from_request(self, **options: Any) -> Any:
        assert (options["argsrepr"], options["retries"]) == (self.request.argsrepr, self.request.retries)
        return SimpleNamespace(apply_async=lambda: None)


def step_of(fleet: Fleet, step: Any, *, retries: int = 0) -> str:
    return run_step(Task(retries), fleet.ledger, "job", step)


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

    words = run_step(Task(), fleet.ledger, "other", lambda: drive_job(app, fleet.ledger, "other"))

    assert "gone" in words
    with pytest.raises(UnknownJob):
        fleet.ledger.status("other")
    assert fleet.ledger._redis.keys("*other*") == []


def test_a_job_of_another_version_is_handed_back_and_fails_only_when_nothing_of_it_moves(
    fleet: Fleet,
) -> None:
    text = fleet.request.model_dump_json().replace(f'"version":{VERSION}', f'"version":{VERSION + 1}')
    fleet.ledger._redis.hset("snapferry:job:job", "request", text)

    with pytest.raises(Retry) as raised:
        step_of(fleet, fleet.drive)

    assert (raised.value.when, fleet.status.state) == (STEP_ASIDE_S, State.QUEUED)
    assert fleet.ledger.driver("job") == ""

    fleet.ledger._redis.hset("snapferry:job:job", "moved_at", time.time() - UNREADABLE_S - 1)
    step_of(fleet, fleet.drive)

    assert fleet.status.state is State.FAILED
    assert "another version" in fleet.status.error


def test_a_source_without_the_snapshot_fails_the_job_and_makes_no_destination(fleet: Fleet) -> None:
    (fleet.source / manifest_key(fleet.snapshot)).unlink()

    step_of(fleet, fleet.drive)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("ManifestMissing: ")
    assert fleet.handed_out == []
    assert not fleet.destination.exists()


def from_kombu(cause: Exception) -> OperationalError:
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


BROKER_TROUBLE = [
    from_kombu(redis.ConnectionError("Error 111 connecting to the broker")),
    from_kombu(OSError("broken pipe")),
    redis.ConnectionError("Connection refused"),
    redis.TimeoutError("Timeout reading from socket"),
    redis.BusyLoadingError("Redis is loading the dataset in memory"),
]


@pytest.mark.parametrize("trouble", BROKER_TROUBLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("retries", [0, MAX_RETRIES, MAX_BROKER_RETRIES, 1000])
def test_a_step_whose_broker_is_away_is_tried_again_and_uses_up_no_try(
    fleet: Fleet, trouble: Exception, retries: int
) -> None:
    with pytest.raises(Retry) as raised:
        step_of(fleet, failing(trouble), retries=retries)

    # `Task` fails if a message with another count of retries is queued.
    assert raised.value.when == BROKER_RETRY_S
    assert fleet.status.state is State.QUEUED


def test_a_broker_that_refuses_for_good_ends_the_job_in_the_end(fleet: Fleet) -> None:
    reason = "this user has no permissions to run the 'lpush' command"
    refused = from_kombu(redis.exceptions.NoPermissionError(reason))
    with pytest.raises(Retry):
        step_of(fleet, failing(refused), retries=MAX_BROKER_RETRIES - 1)
    assert fleet.status.state is State.QUEUED

    with pytest.raises(OperationalError):
        step_of(fleet, failing(refused), retries=MAX_BROKER_RETRIES)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error == f"the broker did not take the job's tasks: {refused}"


def test_a_broker_that_is_away_when_a_step_begins_is_waited_for_as_well(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "start_driving", lambda *_: failing(redis.ConnectionError("refused"))())

    with pytest.raises(Retry) as raised:
        step_of(fleet, fleet.drive)

    assert raised.value.when == BROKER_RETRY_S
    assert fleet.handed_out == []


def test_a_plan_whose_tasks_the_broker_took_in_part_hands_them_out_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_out = drive.hand_out
    monkeypatch.setattr(drive, "hand_out", lambda *_, **__: failing(OperationalError("away"))())
    with pytest.raises(Retry):
        step_of(fleet, fleet.drive)
    monkeypatch.setattr(drive, "hand_out", hand_out)

    assert step_of(fleet, fleet.drive, retries=1) == "5 batches handed out"

    fleet.copy(fleet.handed_out[0])
    assert step_of(fleet, fleet.drive) == "1 snapshot published; done"


@pytest.mark.parametrize(
    "trouble",
    [StoreUnavailable("s3://b", "", "timed out"), OperationalError("away")],
    ids=["store", "broker"],
)
def test_a_step_that_ends_without_success_is_no_sign_of_a_deadly_one(
    fleet: Fleet, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = drive._step
    monkeypatch.setattr(drive, "_step", lambda *_: failing(trouble)())
    for _ in range(2 * MAX_DRIVES):
        with pytest.raises(Retry):
            step_of(fleet, fleet.drive)
    monkeypatch.setattr(drive, "_step", step)

    assert step_of(fleet, fleet.drive).endswith("5 batches handed out")
