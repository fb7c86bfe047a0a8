"""The fixture of the tests of driving."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving import drive
from snapferry.orchestrator.driving.steps import publish, requeue, window
from snapferry.orchestrator.planning import prepare
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import (
    JobSpec,
    StoreRef,
    encode_addresses,
)
from tests.sample import make_store, random_files

from .fleet import Fleet, QueuedBatches


@pytest.fixture(autouse=True)
def _own_temporary_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans are kept there by the id of their job, which all of these tests share, also with other runs of them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A job of 21 objects in batches of at most 5."""
    snapshot = make_store(tmp_path / "source", random_files(20))
    spec = JobSpec(
        job_id="job",
        snapshots=encode_addresses([snapshot]),
        source=StoreRef(url=str(tmp_path / "source")),
        destination=StoreRef(url=str(tmp_path / "destination")),
        batch_objects=5,
        batch_bytes=10**6,
    )
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        fleet = Fleet(Ledger(client, expires_s=3600), tmp_path / "source", tmp_path / "destination", spec)
        fleet.submit(snapshot)

        def queue_batches(
            app: Any,
            spec: JobSpec,
            batches: Any,
            *,
            series: str,
            of: int,
            snapshots: str,
            turn: int = 0,
        ) -> None:
            fleet.queued.append(QueuedBatches(series, turn, list(batches)))

        monkeypatch.setattr(window, "queue_batches", queue_batches)
        monkeypatch.setattr(publish, "queue_batches", queue_batches)
        monkeypatch.setattr(requeue, "queue_batches", queue_batches)
        # On a busy machine a check of some objects may take long, and groups would wait.
        monkeypatch.setattr(publish, "QUICK_S", 3600)
        for module in (drive, publish):
            monkeypatch.setattr(module, "queue_drive", lambda *words, **_: fleet.drives.append(words[-1]))
        yield fleet
        prepare.forget("job")
