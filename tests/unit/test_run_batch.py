"""The worker's task as a plain function: two directories, a real ledger, and no queue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.exceptions import Retry

from stores.address import object_key
from stores.backends.file import FileBackend
from stores.errors import InvalidAddress
from stores.hashing import digest
from stores.snapshot_store import SnapshotStore
from stores.urls import open_store
from tests.faults.backends import FlipsLastByte, Forbids, Unavailable
from workers import tasks
from workers.ledger import JobStatus, Ledger
from workers.messages import BatchMessage, JobRequest, StoreRef
from workers.tasks import MAX_BEGUN, MAX_RETRIES, run_batch

OBJECTS = {digest(data): data for data in (b"object %d" % number for number in range(5))}
ADDRESSES = sorted(OBJECTS)
SIZES = tuple(len(OBJECTS[address]) for address in ADDRESSES)


class Task:
    """What a bound Celery task is to `run_batch`: a count of retries, and a way to ask for another."""

    def __init__(self, retries: int = 0) -> None:
        self.request = SimpleNamespace(retries=retries)

    def retry(self, *, countdown: float, exc: Exception) -> Retry:
        return Retry(str(exc), when=countdown)


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield Ledger(client, expires_s=3600)


@pytest.fixture
def batch(tmp_path: Path, ledger: Ledger) -> BatchMessage:
    """The one batch of a job that copies all objects from one directory to another."""
    source, destination = StoreRef(url=str(tmp_path / "source")), StoreRef(url=str(tmp_path / "destination"))
    store = open_store(source.url)
    for address, data in OBJECTS.items():
        store.put_object(address, data)
    job = JobRequest(
        job_id="job",
        snapshot_id="0" * 64,
        concurrency=None,
        source=source,
        destination=destination,
        batch_objects=10,
        batch_bytes=999,
    )
    ledger.create(job)
    ledger.plan("job", objects=5, size_bytes=sum(SIZES), batches=1)
    return BatchMessage(
        job_id="job", series="plan", number=0, source=source, destination=destination,
        addresses="".join(ADDRESSES), sizes=SIZES,
    )  # fmt: skip


def run(batch: BatchMessage, ledger: Ledger, retries: int = 0) -> str:
    task: Any = Task(retries)
    return run_batch(task, batch, ledger)


def counts(status: JobStatus) -> tuple[int, int, int]:
    return status.copied, status.present, status.failed


def put_before(monkeypatch: pytest.MonkeyPatch, url: str, fault: Any, **options: Any) -> None:
    """Let the store at *url* be opened behind a fault."""
    backend = fault(FileBackend(url), **options)

    def opened(ref: StoreRef) -> SnapshotStore:
        return SnapshotStore(backend) if ref.url == url else open_store(ref.url, ref.objects_url)

    monkeypatch.setattr(tasks, "_open", opened)


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

    assert run(batch, ledger) == "was already done"

    assert ledger.status("job") == status
    assert not (tmp_path / "destination").exists()


def test_a_delivery_after_a_killed_one_counts_as_copied_what_the_killed_one_copied(
    batch: BatchMessage, ledger: Ledger
) -> None:
    ledger.begin(batch)
    ledger.need(batch, objects=5, size_bytes=40)
    destination = open_store(batch.destination.url)
    for address in ADDRESSES[:3]:
        destination.put_object(address, OBJECTS[address])

    run(batch, ledger)

    assert counts(ledger.status("job")) == (5, 0, 0)
    assert ledger.status("job").bytes_copied == 40


def test_a_batch_of_a_cancelled_job_is_not_begun(batch: BatchMessage, ledger: Ledger, tmp_path: Path) -> None:
    ledger.cancel("job")

    assert run(batch, ledger) == "cancelled"

    assert ledger.unaccounted("job", 1) == [0]
    assert not (tmp_path / "destination").exists()


def test_a_running_batch_sees_a_cancel_and_is_not_accounted_for(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports come at every step here, and the first of them comes after the cancel."""
    monkeypatch.setattr(tasks, "REPORT_EVERY_S", 0.0)
    need = Ledger.need

    def cancelled_meanwhile(self: Ledger, *args: Any, **kwargs: Any) -> None:
        need(self, *args, **kwargs)
        self.cancel("job")

    monkeypatch.setattr(Ledger, "need", cancelled_meanwhile)

    assert run(batch, ledger) == "cancelled"

    assert ledger.unaccounted("job", 1) == [0]
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
    assert ledger.unaccounted("job", 1) == [0]
    assert open_store(batch.destination.url).objects_needed(ADDRESSES) == [ADDRESSES[2]]


def test_after_the_last_pass_what_still_fails_is_accounted_for_as_failed(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_before(
        monkeypatch, batch.source.url, Unavailable, strikes=lambda key: key == object_key(ADDRESSES[2])
    )

    words = run(batch, ledger, MAX_RETRIES)

    assert "1 FAILED" in words
    assert counts(ledger.status("job")) == (4, 0, 1)
    assert [(f.address, f.error, f.transient) for f in ledger.failures("job")] == [
        (ADDRESSES[2], "StoreUnavailable", True)
    ]


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
    assert [failure.error for failure in ledger.failures("job")] == ["IntegrityError"]


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
    assert {failure.error for failure in ledger.failures("job")} == {"AccessDenied"}
    assert {failure.store for failure in ledger.failures("job")} == {f"file://{batch.destination.url}"}


def test_a_batch_that_takes_its_workers_down_is_given_up(batch: BatchMessage, ledger: Ledger) -> None:
    for _ in range(MAX_BEGUN):
        ledger.begin(batch)

    run(batch, ledger)

    assert counts(ledger.status("job")) == (0, 0, 5)
    assert "never ended" in ledger.failures("job")[0].detail


def test_a_batch_that_was_begun_often_but_not_too_often_is_copied(
    batch: BatchMessage, ledger: Ledger
) -> None:
    for _ in range(MAX_BEGUN - 1):
        ledger.begin(batch)

    run(batch, ledger)

    assert counts(ledger.status("job")) == (5, 0, 0)


def test_a_message_with_a_path_for_an_address_copies_nothing(
    batch: BatchMessage, ledger: Ledger, tmp_path: Path
) -> None:
    hostile = batch.model_copy(update={"addresses": "../" * 21 + "x" + batch.addresses[64:]})

    with pytest.raises(InvalidAddress):
        run(hostile, ledger)

    assert ledger.unaccounted("job", 1) == [0]
    assert not (tmp_path / "destination").exists()


def test_progress_is_reported_on_the_way(
    batch: BatchMessage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "REPORT_EVERY_S", 0.0)
    seen: list[tuple[int, int]] = []
    progress = Ledger.progress

    def watched(self: Ledger, *args: Any, **kwargs: Any) -> bool:
        cancelled = progress(self, *args, **kwargs)
        status = self.status("job")
        seen.append((status.objects_settled, status.bytes_settled))
        return cancelled

    monkeypatch.setattr(Ledger, "progress", watched)

    run(batch, ledger)

    assert seen == [(count, 8 * count) for count in range(6)]
