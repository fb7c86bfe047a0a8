"""Text of others that is kept of a job is cut, and cannot steer a terminal; the ledger is on a real Redis."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from snapferry.orchestrator.driving.ending import LONGEST_REASON, fail_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.orchestrator.tasks import run_drive
from snapferry.stores.errors import LONGEST_TEXT, IntegrityError, StoreFault
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.commit import MAX_REASON_CHARS as LONGEST_SNAPSHOT_REASON
from snapferry.workers.ledger import State
from snapferry.workers.outcome import BatchOutcome, Failure

from .fleet import Fleet

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\n" * 5000


def test_why_a_job_failed_is_cut_and_harmless(fleet: Fleet) -> None:
    fleet.drive()

    fail_job(fleet.ledger, "job", HOSTILE)

    kept: Any = fleet.ledger._redis.hget("snapferry:job:job", "error")
    assert kept.isprintable()
    assert len(kept) <= LONGEST_REASON
    assert receipt(fleet.ledger, "job")["error"] == kept


def test_why_an_object_failed_is_cut_and_harmless(fleet: Fleet) -> None:
    fleet.drive()
    queued = fleet.queued[0]
    batch = fleet.message(queued, queued.batches[0])
    error = StoreFault("s3://bucket", HOSTILE, HOSTILE)

    fleet.ledger.account(batch, BatchOutcome(failures=[Failure.of(a, error) for a in batch.objects()]))

    found = fleet.ledger.failures("job")
    assert found
    for failed in found:
        assert failed.failure.detail.isprintable()
        assert len(failed.failure.detail) <= LONGEST_TEXT


def test_why_a_snapshot_failed_is_cut_and_harmless(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: SnapshotStore, snapshot_id: str) -> Any:
        raise IntegrityError("store", snapshot_id, HOSTILE)

    fleet.drive()
    for queued in fleet.queued:
        fleet.copy(queued)
    monkeypatch.setattr(SnapshotStore, "read_manifest", broken)
    fleet.drive()

    (row,) = receipt(fleet.ledger, "job")["snapshots"]
    assert row["state"] == "failed"
    assert row["reason"].isprintable()
    assert len(row["reason"]) <= LONGEST_SNAPSHOT_REASON


def test_a_surprise_shows_no_secret_and_no_control_characters(fleet: Fleet) -> None:
    def step() -> DriveOutcome:
        raise ValueError(f"https://user:hunter2@host/?X-Amz-Signature=0123456789abcdef {HOSTILE}")

    task: Any = SimpleNamespace(request=SimpleNamespace(retries=0), name="snapferry.plan_job")
    with pytest.raises(ValueError, match="hunter2"):
        run_drive(task, fleet.ledger, "job", step)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.isprintable()
    assert "hunter2" not in fleet.status.error
    assert "0123456789abcdef" not in fleet.status.error
