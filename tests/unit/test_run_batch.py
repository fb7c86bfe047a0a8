"""The worker's task as a plain function: two directories, a real ledger, and no queue."""

from __future__ import annotations

import base64
import gc
import json
import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import Retry
from kombu import pools

from snapferry.stores.access import AccessPolicy
from snapferry.stores.address import object_key
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.features import KeepsUnfinished
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.runtime.liveness import identity
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.streams import OpenReader
from snapferry.workers.app import make_app
from snapferry.workers.copying import actions, batch_report, copy_run
from snapferry.workers.copying.delivery import MAX_LOST, MAX_STARTS, Skipped, run_batch
from snapferry.workers.copying.requeue import MAX_RETRIES, STEP_ASIDE_S, UNREADABLE_S
from snapferry.workers.copying.settle import ObjectsFailed
from snapferry.workers.copying.transfer import copy_batch
from snapferry.workers.copying.transfer.sequential import MAX_DEATHS, SEQUENTIAL_AFTER
from snapferry.workers.ledger import GRACE_S, LEASE_S, PLAN, JobStatus, Ledger, State, set_bits
from snapferry.workers.ledger.state import Directive
from snapferry.workers.limits.throttle import Throttle
from snapferry.workers.messages import VERSION, Action, BatchMessage, JobSpec, StoreRef, encode_addresses
from snapferry.workers.outcome import BatchOutcome
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.sides import StoreSide, sides_of
from snapferry.workers.reachability.store_check import open_side
from snapferry.workers.settings.environment import Settings
from tests.faults.backends import Around, Died, DiesAfter, FlipsLastByte, Forbids, Unavailable
from tests.integration.processes import until
from tests.sample import tree
from tests.unit.bound_task import BoundTask

OBJECTS = {digest(data): data for data in (b"object %d" % number for number in range(5))}
ADDRESSES = sorted(OBJECTS)
SIZES = tuple(len(OBJECTS[address]) for address in ADDRESSES)

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 10.0


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield Ledger(client, expires_s=3600)


@pytest.fixture
def batch(tmp_path: Path, ledger: Ledger) -> BatchMessage:
    """The one batch of a job that copies all objects from one directory to another, which its plan prepared."""
    source, destination = StoreRef(url=str(tmp_path / "source")), StoreRef(url=str(tmp_path / "destination"))
    open_store(destination.url).prepare()
    store = open_store(source.url)
    for address, data in OBJECTS.items():
        store.put_object(address, data)
    job = JobSpec(
        job_id="job",
        snapshots=encode_addresses(["0" * 64]),
        source=source,
        destination=destination,
        batch_objects=10,
        batch_bytes=999,
    )
    ledger.create(job)
    ledger.advance("job", State.COPYING, objects_total=5, bytes_total=sum(SIZES), batches_total=1)
    return BatchMessage(
        job_id="job", series="plan", number=0, source=source, destination=destination,
        addresses=encode_addresses(ADDRESSES), sizes=SIZES, positions=(0,),
    )  # fmt: skip


def run(batch: BatchMessage, ledger: Ledger, retries: int = 0) -> str:
    """Return how the batch ended, in words, also if objects of it failed."""
    task: Any = BoundTask(retries)
    try:
        words = run_batch(task, batch, ledger)
    except ObjectsFailed as failed:
        return str(failed)
    assert "FAILED" not in words
    return words


def counts(status: JobStatus) -> tuple[int, int, int]:
    return status.copied, status.present, status.failed


def test_nothing_of_a_batch_waits_for_the_garbage_collector(batch: BatchMessage, ledger: Ledger) -> None:
    """It comes late in a worker with threads: it would keep open directories, and megabytes."""
    kinds = (batch_report.BatchReport, copy_run.CopyRun, SnapshotStore, DirectoryBackend, Throttle)

    def living() -> dict[str, int]:
        found = [type(one).__name__ for one in gc.get_objects() if isinstance(one, kinds)]
        return dict(Counter(found))

    gc.collect()
    gc.disable()
    try:
        before = living()
        run(batch, ledger)
        assert living() == before
    finally:
        gc.enable()


def lease_of(ledger: Ledger, name: str = "plan:0") -> float:
    """Return for how many seconds from now a batch is leased."""
    ends: Any = ledger._redis.zscore("snapferry:job:job:leases", name)
    assert ends is not None
    return float(ends) - time.time()


def put_before(monkeypatch: pytest.MonkeyPatch, url: str, fault: Any, **options: Any) -> None:
    """Let the store at *url* be opened behind a fault."""
    backend = fault(DirectoryBackend(url), **options)

    def opened(side: StoreSide, access: AccessPolicy) -> StreamStore:
        return SnapshotStore(backend) if side.ref.url == url else open_side(side, access)

    monkeypatch.setattr(copy_run, "open_side", opened)


def test_a_batch_is_copied_and_accounted_for(batch: BatchMessage, ledger: Ledger) -> None:
    words = run(batch, ledger)

    status = ledger.status("job")
    assert words.startswith("5 copied, 0 present, 40 B in ")
    assert counts(status) == (5, 0, 0)
    assert (status.bytes_copied, status.bytes_settled) == (40, 40)
    assert open_store(batch.destination.url).objects_needed(ADDRESSES) == []


def test_a_second_delivery_does_nothing(batch: BatchMessage, ledger: Ledger, tmp_path: Path) -> None:
    run(batch, ledger)
    status = ledger.status("job")
    (tmp_path / "destination").rename(tmp_path / "elsewhere")
    (tmp_path / "destination").mkdir()

    assert run(batch, ledger) == Skipped.ACCOUNTED

    assert ledger.status("job") == status
    assert tree(tmp_path / "destination") == {}


def test_a_delivery_after_a_killed_one_counts_as_copied_what_the_killed_one_copied(
    batch: BatchMessage, ledger: Ledger
) -> None:
    ledger.begin(batch, dead_holder())
    ledger.note_missing(batch, ADDRESSES)
    destination = open_store(batch.destination.url)
    for address in ADDRESSES[:3]:
        destination.put_object(address, OBJECTS[address])

    run(batch, ledger)

    assert counts(ledger.status("job")) == (5, 0, 0)
    assert ledger.status("job").bytes_copied == 40


def test_a_batch_of_a_cancelled_job_is_not_begun(batch: BatchMessage, ledger: Ledger, tmp_path: Path) -> None:
    ledger.cancel("job")

    assert run(batch, ledger) == Skipped.STOPPED

    assert ledger.unaccounted("job", PLAN, range(1)) == [0]
    assert tree(tmp_path / "destination") == {}


@pytest.mark.parametrize("final", [State.DONE, State.FAILED, State.CANCELLED])
def test_a_batch_of_a_job_that_has_ended_is_not_begun(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path, final: State
) -> None:
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert run(batch, ledger) == Skipped.STOPPED

    assert ledger.status("job") == ended
    assert tree(tmp_path / "destination") == {}


def test_a_batch_of_a_paused_job_is_held_and_copied_when_it_goes_on(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.pause("job", paused=True)

    assert run(batch, ledger) == Skipped.PAUSED

    assert tree(tmp_path / "destination") == {}
    assert (ledger.standing("job").held, ledger.standing("job").leased) == (("plan:0",), 0)
    ledger.pause("job", paused=False)
    assert run(batch, ledger).startswith("5 copied")
    assert ledger.standing("job").held == ()


def pauses_after(monkeypatch: pytest.MonkeyPatch, paused: bool = True) -> None:
    """Let the job be paused when a run of its batch knows what it has to copy, and reports come at every step."""
    monkeypatch.setattr(batch_report, "REPORT_EVERY_S", 0.0)
    need = Ledger.note_missing

    def paused_meanwhile(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        self.pause("job", paused=paused)

    monkeypatch.setattr(Ledger, "note_missing", paused_meanwhile)


def test_a_batch_that_runs_when_its_job_is_paused_begins_no_object_and_is_held(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        pauses_after(patched)

        assert run(batch, ledger) == Skipped.PAUSED

    assert len(open_store(batch.destination.url).objects_needed(ADDRESSES)) == 5
    assert (ledger.standing("job").held, ledger.standing("job").leased) == (("plan:0",), 0)
    ledger.pause("job", paused=False)
    assert run(batch, ledger).startswith("5 copied")
    assert counts(ledger.status("job")) == (5, 0, 0)
    assert ledger.begin(batch, "whoever it is delivered to").accounted


def test_a_batch_whose_job_goes_on_before_it_is_held_is_queued_again(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses_after(monkeypatch)
    hold = Ledger.hold

    def continued_meanwhile(self: Ledger, *args: Any) -> bool:
        self.pause("job", paused=False)
        return hold(self, *args)

    monkeypatch.setattr(Ledger, "hold", continued_meanwhile)
    task: Any = BoundTask()

    with pytest.raises(Retry):
        run_batch(task, batch, ledger)

    assert len(task.stepped_aside) == 1
    assert (ledger.standing("job").held, ledger.standing("job").leased) == ((), 0)


def objects_in_flight_wait(monkeypatch: pytest.MonkeyPatch, source: str, *, honours: bool) -> threading.Event:
    """Let the GET of an object wait; *honours* a stop of its batch or not. Set the event that is returned to end it."""
    ends = threading.Event()

    class Waits(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            while not ends.wait(0.01):
                if honours:
                    checkpoint()
            return self.inner.open(key, size_hint=size_hint)

    put_before(monkeypatch, source, Waits)
    monkeypatch.setattr(batch_report, "HEARTBEAT_S", 0.01)
    return ends


@pytest.mark.parametrize("wish", ["cancel", "pause", "fail"])
def test_an_object_that_waits_is_interrupted_when_its_job_wants_no_more_of_it(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    objects_in_flight_wait(monkeypatch, batch.source.url, honours=True)
    monkeypatch.setattr(batch_report, "PAUSE_GRACE_S", 0.0)
    with ThreadPoolExecutor() as pool:
        ran = pool.submit(run, batch, ledger)
        until(lambda: any(found.in_flight for found in ledger.running(["job"])), "objects are in flight")
        if wish == "cancel":
            ledger.cancel("job")
        elif wish == "fail":
            ledger.advance("job", State.FAILED)
        else:
            ledger.pause("job", paused=True)
        words = ran.result(60)

    held = wish == "pause"
    assert words == (Skipped.PAUSED if held else Skipped.STOPPED)
    standing = ledger.standing("job")
    assert (standing.leased, standing.held) == (0, ("plan:0",) if held else ())
    assert len(open_store(batch.destination.url).objects_needed(ADDRESSES)) == 5


def test_objects_in_flight_end_within_the_grace_of_a_pause(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_at_a_time = batch.model_copy(update={"concurrency": 1})
    with monkeypatch.context() as patched, ThreadPoolExecutor() as pool:
        ends = objects_in_flight_wait(patched, batch.source.url, honours=True)
        patched.setattr(batch_report, "PAUSE_GRACE_S", 3600.0)
        ran = pool.submit(run, one_at_a_time, ledger)
        until(lambda: any(found.in_flight for found in ledger.running(["job"])), "an object is in flight")
        ledger.pause("job", paused=True)
        # The heartbeat after this one has seen the pause.
        until(lambda: ledger.standing("job").paused, "the job is paused")
        beats_pass(ledger)
        ends.set()
        assert ran.result(60) == Skipped.PAUSED

    ledger.pause("job", paused=False)
    assert run(batch, ledger).startswith("4 copied, 1 present")
    assert counts(ledger.status("job")) == (5, 0, 0)


def beats_pass(ledger: Ledger) -> None:
    """Wait until the lease of the batch was renewed twice more."""
    for _ in range(2):
        beat_passes(ledger)


def beat_passes(ledger: Ledger) -> None:
    """Wait until the lease of the batch was renewed once more."""

    def lease() -> Any:
        return ledger._redis.zscore("snapferry:job:job:leases", "plan:0")

    before = lease()
    until(lambda: lease() != before, "a beat")


@pytest.mark.parametrize("wish", ["cancel", "pause"])
def test_a_batch_that_cannot_be_interrupted_is_let_go(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    """As in a read from an NFS server that is gone. In a process of a pool it would be killed as well."""
    for name in ("PAUSE_GRACE_S", "STUCK_S"):
        monkeypatch.setattr(batch_report, name, 0.0)
    with ThreadPoolExecutor() as pool:
        ends = objects_in_flight_wait(monkeypatch, batch.source.url, honours=False)
        try:
            ran = pool.submit(run, batch, ledger)
            until(lambda: any(found.in_flight for found in ledger.running(["job"])), "objects are in flight")
            if wish == "cancel":
                ledger.cancel("job")
            else:
                ledger.pause("job", paused=True)
            until(lambda: not ledger.standing("job").leased, "its lease has ended")
            assert not ran.done()
            assert ledger.standing("job").held == (("plan:0",) if wish == "pause" else ())
        finally:
            ends.set()
        ran.result(60)


def dies(batch: BatchMessage, ledger: Ledger, times: int) -> None:
    """Let so many workers die in the middle of the batch, before any object could be told from the others."""
    for _ in range(times):
        ledger.begin(batch, dead_holder(), instead_of=ledger_holder(ledger))


def ledger_holder(ledger: Ledger) -> str:
    return str(ledger._redis.hget("snapferry:job:job:holders", "plan:0") or "")


class Killed(BaseException):
    """What a SIGKILL looks like from inside: nothing that comes after it is done."""


@pytest.mark.parametrize("poisons", [1, 2])
def test_an_object_that_kills_its_workers_fails_and_no_other(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, poisons: int
) -> None:
    deadly = [1, 3][:poisons]
    keys = {object_key(ADDRESSES[at]) for at in deadly}

    class Kills(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            if key in keys:
                raise Killed
            return self.inner.open(key, size_hint=size_hint)

    put_before(monkeypatch, batch.source.url, Kills)
    # What the process would have done after its death is not done.
    monkeypatch.setattr(Ledger, "release", lambda *_, **__: None)
    died, words = 0, ""
    while not words:
        if holder := ledger_holder(ledger):
            ledger._redis.hset("snapferry:job:job:holders", "plan:0", dead_holder())
            assert holder
        try:
            words = run(batch, ledger)
        except Killed:
            died += 1
            assert died <= SEQUENTIAL_AFTER + poisons * MAX_DEATHS

    assert died == SEQUENTIAL_AFTER + poisons * MAX_DEATHS
    assert f"{poisons} FAILED" in words
    assert list(set_bits(ledger.bitmap("job", "failed"))) == deadly
    assert counts(ledger.status("job")) == (5 - poisons, 0, poisons)
    failures = ledger.failures("job")
    assert [found.failure.address for found in failures] == [ADDRESSES[at] for at in deadly]
    assert all(str(MAX_DEATHS) in found.failure.detail for found in failures)
    assert not ledger._redis.exists("snapferry:job:job:alone")


def test_deaths_over_other_objects_each_time_fail_none(batch: BatchMessage, ledger: Ledger) -> None:
    """As where another batch in the same process is the one that kills it."""
    dies(batch, ledger, SEQUENTIAL_AFTER)
    for turn in range(4 * MAX_DEATHS):
        holder = dead_holder() + str(turn)
        ledger.begin(batch, holder, instead_of=ledger_holder(ledger))
        ledger.note_current_object(batch, holder, turn % 5)
    ledger._redis.hset("snapferry:job:job:holders", "plan:0", dead_holder())

    assert run(batch, ledger).startswith("5 copied")


def test_an_exception_that_nobody_expects_fails_the_object_that_it_comes_from(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Surprises(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            if key == object_key(ADDRESSES[2]):
                raise MemoryError("no room")
            return self.inner.open(key, size_hint=size_hint)

    put_before(monkeypatch, batch.source.url, Surprises)

    assert "1 FAILED" in run(batch, ledger)

    assert counts(ledger.status("job")) == (4, 0, 1)
    assert "MemoryError" in ledger.failures("job")[0].failure.detail


def test_an_exception_before_any_object_fails_them_all(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_run, "open_side", lambda *_, **__: 1 / 0)

    assert "5 FAILED" in run(batch, ledger)

    assert counts(ledger.status("job")) == (0, 0, 5)
    assert ledger.standing("job").leased == 0


def test_a_batch_that_cannot_be_accounted_for_counts_as_begun_without_an_end(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it cannot be handed out again for ever."""
    monkeypatch.setattr(Ledger, "account", lambda *_, **__: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run(batch, ledger)

    assert ledger.begun("job", ["plan:0"]) == [2]
    assert ledger.standing("job").leased == 0


def test_a_batch_that_waits_for_another_try_is_held_if_its_job_is_paused_by_then(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(monkeypatch, batch.destination.url, Unavailable, times=1)
    with pytest.raises(Retry):
        run(batch, ledger)
    ledger.pause("job", paused=True)

    assert run(batch, ledger, 1) == Skipped.PAUSED

    assert ledger.standing("job").held == ("plan:0",)


@pytest.mark.parametrize("end", ["done", "failed"])
def test_which_objects_were_copied_and_which_failed_is_known_of_each(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    open_store(batch.destination.url).put_object(ADDRESSES[1], OBJECTS[ADDRESSES[1]])
    bad = object_key(ADDRESSES[3]) if end == "failed" else ""
    put_before(monkeypatch, batch.source.url, FlipsLastByte, strikes=lambda key: key == bad)

    run(batch, ledger)

    failed = [3] if end == "failed" else []
    assert list(set_bits(ledger.bitmap("job", "failed"))) == failed
    assert list(set_bits(ledger.bitmap("job", "copied"))) == sorted({0, 2, 3, 4} - set(failed))


def test_a_running_batch_sees_the_end_of_its_job_and_counts_nothing_any_more(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_report, "REPORT_EVERY_S", 0.0)
    need = Ledger.note_missing

    def failed_meanwhile(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        self.advance("job", State.FAILED)

    monkeypatch.setattr(Ledger, "note_missing", failed_meanwhile)

    assert run(batch, ledger) == Skipped.STOPPED

    status = ledger.status("job")
    assert (counts(status), status.objects_settled, status.batches_done) == ((0, 0, 0), 0, 0)


def test_a_running_batch_sees_a_cancel_and_is_not_accounted_for(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports come at every step here, and the first of them comes after the cancel."""
    monkeypatch.setattr(batch_report, "REPORT_EVERY_S", 0.0)
    need = Ledger.note_missing

    def cancelled_meanwhile(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        self.cancel("job")

    monkeypatch.setattr(Ledger, "note_missing", cancelled_meanwhile)

    assert run(batch, ledger) == Skipped.STOPPED

    assert ledger.unaccounted("job", PLAN, range(1)) == [0]
    assert len(open_store(batch.destination.url).objects_needed(ADDRESSES)) == 5


@pytest.mark.parametrize(("retries", "pause"), [(0, 2), (1, 4), (2, 8)])
def test_passing_trouble_with_one_object_is_tried_again_after_a_growing_pause(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, retries: int, pause: int
) -> None:
    put_before(
        monkeypatch, batch.source.url, Unavailable, strikes=lambda key: key == object_key(ADDRESSES[2])
    )

    with pytest.raises(Retry) as raised:
        run(batch, ledger, retries)

    assert raised.value.when == pause
    assert ledger.unaccounted("job", PLAN, range(1)) == [0]
    assert open_store(batch.destination.url).objects_needed(ADDRESSES) == [ADDRESSES[2]]
    standing = ledger.standing("job")
    assert (standing.leased, standing.running, standing.expired) == (1, 0, ())
    assert pause < lease_of(ledger) <= pause + GRACE_S
    assert ledger.begin(batch, "whoever it is delivered to").times == 1


def test_after_the_last_pass_what_still_fails_is_accounted_for_as_failed(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(
        monkeypatch, batch.source.url, Unavailable, strikes=lambda key: key == object_key(ADDRESSES[2])
    )

    words = run(batch, ledger, MAX_RETRIES)

    assert "1 FAILED" in words
    assert counts(ledger.status("job")) == (4, 0, 1)
    (failed,) = ledger.failures("job")
    assert (failed.failure.address, failed.failure.error) == (ADDRESSES[2], "StoreUnavailable")
    assert failed.failure.transient
    assert (failed.attempts, failed.worker) == (MAX_RETRIES + 1, "copier@here")
    assert list(set_bits(ledger.bitmap("job", "failed"))) == [2]


def test_the_pass_that_succeeds_counts_all_objects_as_copied(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(
        monkeypatch,
        batch.source.url,
        Unavailable,
        strikes=lambda key: key == object_key(ADDRESSES[2]),
        times=1,
    )
    with pytest.raises(Retry):
        run(batch, ledger)

    run(batch, ledger, 1)

    assert counts(ledger.status("job")) == (5, 0, 0)
    assert ledger.status("job").bytes_copied == 40


def test_a_corrupt_object_is_not_tried_again(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(
        monkeypatch, batch.source.url, FlipsLastByte, strikes=lambda key: key == object_key(ADDRESSES[0])
    )

    run(batch, ledger)

    assert counts(ledger.status("job")) == (4, 0, 1)
    assert [failed.failure.error for failed in ledger.failures("job")] == ["IntegrityError"]


def test_a_destination_that_does_not_answer_is_asked_again_later(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(monkeypatch, batch.destination.url, Unavailable)

    with pytest.raises(Retry):
        run(batch, ledger)
    run(batch, ledger, MAX_RETRIES)

    assert counts(ledger.status("job")) == (0, 0, 5)


def test_a_destination_that_refuses_fails_every_object_and_is_not_asked_again(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(monkeypatch, batch.destination.url, Forbids)

    run(batch, ledger)

    assert counts(ledger.status("job")) == (0, 0, 5)
    assert {failed.failure.error for failed in ledger.failures("job")} == {"AccessDenied"}
    assert {failed.failure.store for failed in ledger.failures("job")} == {f"file://{batch.destination.url}"}


def test_a_destination_that_is_not_there_is_a_failure_and_no_directory_is_made_in_its_place(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path
) -> None:
    """Where a mount is missing on one worker, its objects must not go to the disk below."""
    (tmp_path / "destination").rmdir()

    with pytest.raises(Retry, match="cannot reach"):
        run(batch, ledger)
    assert counts(ledger.status("job")) == (0, 0, 0)
    parked = [job.job_id for job in ParkedJobs(ledger.client).all()]
    assert parked == ["job"], "it waits for a worker that has the mount"

    ParkedJobs(ledger.client).give_up("job", "no live worker can reach both stores")
    words = run(batch, ledger)

    assert "5 FAILED" in words
    assert counts(ledger.status("job")) == (0, 0, 5)
    assert {failed.failure.error for failed in ledger.failures("job")} == {"StoreNotFound"}
    assert "is it mounted here?" in ledger.failures("job")[0].failure.detail
    assert not (tmp_path / "destination").exists()


def test_an_unmounted_store_is_parked_and_not_verified_as_empty(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path
) -> None:
    """Where nothing is mounted, a directory is empty: that is no finding about the store."""
    looked = batch.model_copy(update={"action": Action.VERIFY, "destination": batch.source})
    assert run(looked, ledger).startswith("5 intact, 40 B read in ")
    ledger._redis.delete("snapferry:job:job:done:plan")
    (tmp_path / "source" / ".objects").rename(tmp_path / "elsewhere")

    with pytest.raises(Retry):
        run(looked, ledger)

    (parked,) = ParkedJobs(ledger.client).all()
    assert parked.sides == sides_of(looked)
    assert not any(side.writing for side in parked.sides)
    assert ledger.status("job").failed == 0


def test_a_source_that_is_not_there_fails_every_object(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "source").rename(tmp_path / "elsewhere")
    ParkedJobs(ledger.client).give_up("job", "no live worker can reach both stores")

    run(batch, ledger)

    assert counts(ledger.status("job")) == (0, 0, 5)
    assert {failed.failure.error for failed in ledger.failures("job")} == {"StoreNotFound"}
    assert not (tmp_path / "source").exists()


def dead_holder() -> str:
    """Return a holder whose process has ended, and was another one than those of earlier calls."""
    code = "from snapferry.stores.runtime.liveness import identity; print(identity())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True)
    return f"{ended.stdout.decode().strip()}#0"


def begin_and_die(batch: BatchMessage, ledger: Ledger, times: int) -> None:
    """Begin *batch* so often as a worker of this machine that is killed each time."""
    holder = ""
    for number in range(times):
        # This process's number with another token: an earlier process, so a dead one.
        dead, holder = holder, "-".join([*identity().split("-")[:2], f"token{number}"]) + "#0"
        assert ledger.begin(batch, holder, instead_of=dead).times == number + 1


def test_a_batch_that_takes_its_workers_down_is_given_up(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path
) -> None:
    begin_and_die(batch, ledger, MAX_STARTS)

    run(batch, ledger)

    assert counts(ledger.status("job")) == (0, 0, 5)
    assert "never ended" in ledger.failures("job")[0].failure.detail
    assert {failed.attempts for failed in ledger.failures("job")} == {MAX_STARTS}
    assert list(set_bits(ledger.bitmap("job", "failed"))) == [0, 1, 2, 3, 4]
    assert ledger.standing("job").leased == 0
    assert tree(tmp_path / "destination") == {}


@pytest.mark.parametrize("lost", [MAX_LOST, MAX_LOST + 1])
def test_a_batch_whose_machines_are_always_lost_is_given_up_late(
    batch: BatchMessage, ledger: Ledger, lost: int
) -> None:
    ledger.client.hset("snapferry:job:job:begun", "plan:0#lost", lost)

    run(batch, ledger)

    if lost <= MAX_LOST:
        assert counts(ledger.status("job")) == (5, 0, 0)
        return
    assert counts(ledger.status("job")) == (0, 0, 5)
    assert "machines were lost" in ledger.failures("job")[0].failure.detail
    assert ledger.standing("job").leased == 0


@pytest.mark.parametrize("died", [0, 1, 2])
def test_only_after_a_death_is_it_looked_for_what_dead_uploads_left(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, died: int
) -> None:
    cleaned = []

    class Cleans(Around, KeepsUnfinished):
        def abort_unfinished(self, key: str, size_hint: int, *, dead_only: bool = False) -> None:
            cleaned.append((key, size_hint))

    put_before(monkeypatch, batch.destination.url, Cleans)
    begin_and_die(batch, ledger, died)

    run(batch, ledger)

    expected = [(object_key(address), size) for address, size in zip(ADDRESSES, SIZES, strict=True)]
    assert cleaned == (expected if died else [])
    assert counts(ledger.status("job")) == (5, 0, 0)


def test_a_batch_that_was_begun_often_but_not_too_often_is_copied(
    batch: BatchMessage, ledger: Ledger
) -> None:
    begin_and_die(batch, ledger, MAX_STARTS - 1)

    run(batch, ledger)

    assert counts(ledger.status("job")) == (5, 0, 0)


def test_the_batch_of_a_dead_worker_is_taken_over_at_once(batch: BatchMessage, ledger: Ledger) -> None:
    ledger.begin(batch, dead_holder())

    assert run(batch, ledger).startswith("5 copied")


@pytest.mark.parametrize(
    "holder",
    [
        f"{identity()}#another delivery in this process",
        f"another-{identity().partition('-')[2]}#0",
        "of another version",
    ],
    ids=["this process", "another machine", "no identity"],
)
def test_a_delivery_steps_aside_for_a_worker_that_is_not_known_to_be_dead(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path, holder: str
) -> None:
    ledger.begin(batch, holder)
    task: Any = BoundTask(retries=2)

    with pytest.raises(Retry) as raised:
        run_batch(task, batch, ledger)

    assert raised.value.when == STEP_ASIDE_S
    assert task.stepped_aside == [
        {"countdown": STEP_ASIDE_S, "retries": 2, "argsrepr": "batch 1 of 1", "kwargsrepr": ""}
    ]
    assert ledger.unaccounted("job", PLAN, range(1)) == [0]
    assert tree(tmp_path / "destination") == {}
    assert ledger.begin(batch, "one more").holder == holder


def test_stepping_aside_any_number_of_times_is_no_sign_of_a_deadly_batch(
    batch: BatchMessage, ledger: Ledger
) -> None:
    busy = f"{identity()}#busy"
    ledger.begin(batch, busy)
    for _ in range(2 * MAX_STARTS):
        with pytest.raises(Retry):
            run(batch, ledger, retries=MAX_RETRIES)
    ledger.release(batch, busy)

    assert run(batch, ledger).startswith("5 copied")


def test_a_delivery_steps_aside_for_another_process_of_this_machine_until_that_has_ended(
    batch: BatchMessage, ledger: Ledger
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        machine = identity().split("-")[0]
        ledger.begin(batch, f"{machine}-{other.pid}-0123456789ab#0")

        with pytest.raises(Retry):
            run(batch, ledger)

        other.communicate(b"\n")

    assert run(batch, ledger).startswith("5 copied")


@pytest.mark.parametrize("end", ["copied", "retried", "died", "surprised"])
def test_every_end_but_a_kill_gives_the_lease_back_and_leaves_no_beginning(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    heal = batch.model_copy(update={"series": "heal-0-1"})
    if end == "retried":
        put_before(monkeypatch, batch.destination.url, Unavailable)
        with pytest.raises(Retry):
            run(heal, ledger)
    elif end == "died":
        put_before(monkeypatch, batch.destination.url, DiesAfter, writes=2)
        with pytest.raises(Died):
            run(heal, ledger)
    elif end == "surprised":
        # Together they fail; then each is run by itself.
        monkeypatch.setattr(
            actions, "copy_batch", lambda *a, **k: copy_batch(*a, **k) if len(a[2]) == 1 else 1 / 0
        )
        assert run(heal, ledger).startswith("5 copied")
        ledger._redis.delete("snapferry:job:job:done:heal-0-1")
    else:
        run(heal, ledger)
        ledger._redis.delete("snapferry:job:job:done:heal-0-1")

    begun = ledger.begin(heal, "another")

    assert (begun.holder, begun.times) == ("", 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_two_deliveries_at_the_same_time_copy_the_batch_once(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first is in the middle of it."""
    need = Ledger.note_missing
    second: Any = BoundTask()

    def meanwhile(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        with pytest.raises(Retry):
            run_batch(second, batch, ledger)

    monkeypatch.setattr(Ledger, "note_missing", meanwhile)

    assert run(batch, ledger).startswith("5 copied, 0 present")

    assert len(second.stepped_aside) == 1
    assert run_batch(second, batch, ledger) == Skipped.ACCOUNTED
    assert counts(ledger.status("job")) == (5, 0, 0)


def test_a_heart_beats_while_one_object_takes_long_and_stops_with_the_batch(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No object is settled until the heart has beaten three times; each beat renews the lease."""
    monkeypatch.setattr(batch_report, "HEARTBEAT_S", 0.001)
    beats = threading.Semaphore(0)
    leases: list[float] = []
    progress = Ledger.progress

    def watched(self: Ledger, *args: Any, **kwargs: Any) -> Directive:
        self._redis.zadd("snapferry:job:job:leases", {"plan:0": time.time() - 3})
        stop = progress(self, *args, **kwargs)
        leases.append(lease_of(self))
        beats.release()
        return stop

    def patient(*_: Any, **__: Any) -> Any:
        for _beat in range(3):
            assert beats.acquire(timeout=TIMEOUT_S)
        return BatchOutcome(present=5)

    monkeypatch.setattr(Ledger, "progress", watched)
    monkeypatch.setattr(actions, "copy_batch", patient)

    run(batch, ledger)

    assert len(leases) >= 3
    assert min(leases) > LEASE_S / 2
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_cancel_is_seen_by_the_heart_before_the_next_report_is_due(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_report, "HEARTBEAT_S", 0.001)
    monkeypatch.setattr(batch_report, "REPORT_EVERY_S", 3600.0)
    stopped = threading.Event()
    progress, need = Ledger.progress, Ledger.note_missing

    def watched(self: Ledger, *args: Any, **kwargs: Any) -> Directive:
        stop = progress(self, *args, **kwargs)
        if stop:
            stopped.set()
        return stop

    def cancelled_meanwhile(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        self.cancel("job")
        # Two beats later what the first of them learnt is known to the batch.
        for _ in range(2):
            stopped.clear()
            assert stopped.wait(TIMEOUT_S)

    monkeypatch.setattr(Ledger, "progress", watched)
    monkeypatch.setattr(Ledger, "note_missing", cancelled_meanwhile)

    assert run(batch, ledger) == Skipped.STOPPED

    assert len(open_store(batch.destination.url).objects_needed(ADDRESSES)) == 5


def test_a_heart_survives_a_broker_that_is_away(
    batch: BatchMessage,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(batch_report, "HEARTBEAT_S", 0.001)
    beats = threading.Semaphore(0)

    def away(*_: Any, **__: Any) -> bool:
        beats.release()
        raise redis.ConnectionError("the broker is away")

    def patient(*_: Any, **__: Any) -> Any:
        for _beat in range(2):
            assert beats.acquire(timeout=TIMEOUT_S)
        return BatchOutcome(present=5)

    monkeypatch.setattr(Ledger, "progress", away)
    monkeypatch.setattr(actions, "copy_batch", patient)

    with caplog.at_level(logging.WARNING):
        run(batch, ledger)

    assert "cannot report on the batch: the broker is away" in caplog.text
    assert counts(ledger.status("job")) == (0, 5, 0)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """The real app on a real broker, of which the tests look at the queue."""
    app = make_app(Settings(broker_url=redis_url))
    yield app
    app.close()
    pools.reset()


def deliver(app: Celery, message: dict[str, Any], retries: int = 0) -> Any:
    """Run the task on *message* as a worker would."""
    task = app.tasks["snapferry.copy_batch"]
    task.push_request(
        id="0-1-2", args=(message,), kwargs={}, retries=retries, called_directly=False, argsrepr="the words",
        delivery_info={"exchange": "", "routing_key": "snapferry.copy"}, chord={"task": "the commit"},
        group="the group",
    )  # fmt: skip
    try:
        return task.run(message)
    finally:
        task.pop_request()


def queued(ledger: Ledger) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Return message, headers and canvas of each task in the queue of copies."""
    found = []
    for text in ledger._redis.lrange("snapferry.copy", 0, -1):
        envelope = json.loads(text)
        args, _, canvas = json.loads(_decoded(envelope))
        found.append((args[0], envelope["headers"], canvas))
    return found


def _decoded(envelope: dict[str, Any]) -> bytes:
    return base64.b64decode(envelope["body"])


def seconds_until(eta: str) -> float:
    return datetime.fromisoformat(eta).timestamp() - time.time()


def test_a_delivery_that_steps_aside_is_queued_as_it_came(
    app: Celery, batch: BatchMessage, ledger: Ledger
) -> None:
    """The same task, a part of the same chord, described as before, no retry nearer to its last."""
    ledger.begin(batch, f"{identity()}#busy")
    message = json.loads(json.dumps(batch.model_dump()))

    with pytest.raises(Retry):
        deliver(app, message, retries=MAX_RETRIES)

    ((again, headers, canvas),) = queued(ledger)
    assert again == message
    assert (headers["id"], headers["retries"], headers["argsrepr"]) == ("0-1-2", MAX_RETRIES, "the words")
    assert (headers["group"], canvas["chord"]) == ("the group", {"task": "the commit"})
    assert 0 < seconds_until(headers["eta"]) <= STEP_ASIDE_S


@pytest.mark.parametrize(
    "changes",
    [{"version": VERSION + 1}, {"addresses": "../" * 21 + "x" + "0" * 256}],
    ids=["version", "path"],
)
def test_a_message_that_cannot_be_read_copies_nothing_and_is_handed_back_for_a_worker_that_can(
    app: Celery, batch: BatchMessage, ledger: Ledger, tmp_path: Path, changes: dict[str, Any]
) -> None:
    message = json.loads(json.dumps({**batch.model_dump(), **changes}))

    with pytest.raises(Retry):
        deliver(app, message, retries=MAX_RETRIES - 1)

    ((again, headers, canvas),) = queued(ledger)
    assert again == message
    assert (headers["id"], headers["argsrepr"]) == ("0-1-2", "the words")
    assert headers["retries"] == MAX_RETRIES - 1, "no pass of the one that can read it is used up"
    assert canvas["chord"] == {"task": "the commit"}
    assert 0 < seconds_until(headers["eta"]) <= STEP_ASIDE_S
    assert ledger.unaccounted("job", PLAN, range(1)) == [0]
    assert tree(tmp_path / "destination") == {}


def test_a_message_that_no_worker_can_read_is_given_up_when_nothing_else_of_the_job_moves(
    app: Celery, batch: BatchMessage, ledger: Ledger
) -> None:
    """The chord then calls its errback, and the commit finds the batch unaccounted."""
    ledger._redis.hset("snapferry:job:job", "moved_at", time.time() - UNREADABLE_S - 1)
    message = json.loads(json.dumps({**batch.model_dump(), "version": VERSION + 1}))

    with pytest.raises(RuntimeError, match="not a message of this version: 1 faults"):
        deliver(app, message)

    assert queued(ledger) == []
    assert ledger.unaccounted("job", PLAN, range(1)) == [0]


def test_a_message_that_cannot_be_read_is_not_lost_while_it_waits_for_a_worker_that_can(
    app: Celery, batch: BatchMessage, ledger: Ledger
) -> None:
    """Nobody runs it, so it has a lease without a holder, renewed by each worker that hands it back."""
    message = json.loads(json.dumps({**batch.model_dump(), "version": VERSION + 1}))

    for _ in range(3):
        with pytest.raises(Retry):
            deliver(app, message)

        standing = ledger.standing("job")
        assert (standing.leased, standing.running, standing.expired) == (1, 0, ())
        assert STEP_ASIDE_S < lease_of(ledger) <= STEP_ASIDE_S + GRACE_S
        ledger._redis.zadd("snapferry:job:job:leases", {"plan:0": time.time() + 1})

    assert ledger.begin(batch, "a worker that can").times == 1


@pytest.mark.parametrize("message", [{}, {"job_id": "job"}, {"job_id": 7, "number": "x"}, "no message", None])
def test_what_is_no_message_at_all_leaves_nothing_in_the_ledger_of_another_job(
    app: Celery, ledger: Ledger, message: Any
) -> None:
    with pytest.raises(RuntimeError, match="not a message of this version"):
        deliver(app, message)

    assert ledger._redis.keys("snapferry:job:*") == []


def test_the_workers_of_a_job_are_known_while_they_run(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = Ledger.note_missing
    seen: list[Any] = []

    def watched(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        seen.append((self.status("job").workers, self.standing("job").running))

    monkeypatch.setattr(Ledger, "note_missing", watched)

    run(batch, ledger)

    assert seen == [(("copier@here",), 1)]
    assert (ledger.status("job").workers, ledger.standing("job").running) == ((), 0)


def test_progress_is_reported_on_the_way(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_report, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr("snapferry.stores.backends.directory.backend.COMMITS_TOGETHER", 2)
    seen: list[tuple[int, int]] = []
    progress = Ledger.progress

    def watched(self: Ledger, *args: Any, **kwargs: Any) -> Directive:
        cancelled = progress(self, *args, **kwargs)
        status = self.status("job")
        seen.append((status.objects_settled, status.bytes_settled))
        return cancelled

    monkeypatch.setattr(Ledger, "progress", watched)

    run(batch, ledger)

    assert seen == [(count, 8 * count) for count in (0, 2, 4, 5)]


def test_a_worker_that_leaves_gives_its_batch_back_for_another_to_begin_at_once(
    app: Celery, batch: BatchMessage, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is gone before the message is there, nothing half written is left, and no death is counted."""
    message = json.loads(json.dumps(batch.model_dump()))
    leaves = iter([False, False, False])
    monkeypatch.setattr("snapferry.workers.lifecycle.shutdown.must_requeue", lambda: next(leaves, True))

    with pytest.raises(Retry):
        deliver(app, message, retries=1)

    ((again, headers, canvas),) = queued(ledger)
    assert (again, headers["id"], headers["retries"], headers["eta"]) == (message, "0-1-2", 1, None)
    assert (headers["group"], canvas["chord"]) == ("the group", {"task": "the commit"})
    assert ledger._redis.zcard("snapferry:job:job:leases") == 0
    assert [path for path in tree(tmp_path / "destination") if ".tmp-" in path] == []
    assert ledger.status("job").batches_done == 0

    monkeypatch.undo()
    assert ledger.begin(batch, "another").times == 1
    ledger.release(batch, "another")
    deliver(app, message)
    assert counts(ledger.status("job")) == (5, 0, 0)


def test_a_worker_that_leaves_begins_nothing(
    app: Celery, batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.workers.lifecycle.shutdown.must_requeue", lambda: True)

    with pytest.raises(Retry):
        deliver(app, json.loads(json.dumps(batch.model_dump())))

    assert len(queued(ledger)) == 1
    assert ledger._redis.exists("snapferry:job:job:begun") == 0


def test_what_failed_is_a_line_for_each_kind_of_error_and_not_for_each_object(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for address in ADDRESSES[:3]:
        (tmp_path / "source" / object_key(address)).unlink()

    with caplog.at_level(logging.INFO):
        run(batch, ledger)

    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().partition(",")[0] for record in failed] == ["3 objects failed"]
    assert failed[0].fields["error"] == "ObjectMissing"  # type: ignore[attr-defined]
    assert "batch ended: 2 copied, 0 present, 3 FAILED" in caplog.text
