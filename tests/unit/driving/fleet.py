"""A job whose batches are caught instead of queued, and run by hand in any order. The ledger is on a real Redis."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snapferry.orchestrator.driving.dispatch import batch_message
from snapferry.orchestrator.driving.drive import drive_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.orchestrator.driving.snapshot_rows import snapshot_rows
from snapferry.orchestrator.planning import prepare
from snapferry.orchestrator.planning.batches import Batch
from snapferry.stores.access import TRUSTED, AccessPolicy
from snapferry.stores.address import Address, SnapshotId, object_key
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.delivery import run_batch
from snapferry.workers.copying.settle import ObjectsFailed
from snapferry.workers.ledger import JobStatus, Ledger
from snapferry.workers.messages import (
    BatchMessage,
    JobSpec,
    encode_addresses,
)
from tests.sample import make_store, random_files


@dataclass
class QueuedBatches:
    """One call of `queue_batches`: what a chord would carry."""

    series: str
    turn: int
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
    spec: JobSpec
    queued: list[QueuedBatches] = field(default_factory=list)
    drives: list[str] = field(default_factory=list)

    def submit(self, *ids: SnapshotId, **changed: Any) -> None:
        """Begin anew, with a job of other snapshots."""
        self.ledger._redis.flushall()
        prepare.forget("job")
        self.queued.clear()
        self.spec = self.spec.model_copy(update={"snapshots": encode_addresses(ids), **changed})
        self.ledger.create(self.spec)

    @property
    def status(self) -> JobStatus:
        return self.ledger.status(self.spec.job_id)

    @property
    def snapshot(self) -> SnapshotId:
        return self.spec.snapshot_ids[0]

    @property
    def store(self) -> SnapshotStore:
        return open_store(str(self.destination))

    access: AccessPolicy = TRUSTED

    def drive(self) -> DriveOutcome:
        app: Any = None
        return drive_job(app, self.ledger, self.spec.job_id, self.access)

    def copy(self, queued: QueuedBatches, *numbers: int, worker: str = "w") -> list[str]:
        """Run batches as a worker would; all of them if no *numbers* are given."""
        task: Any = SimpleNamespace(request=SimpleNamespace(retries=99, hostname=worker))
        words = []
        for batch in queued.batches:
            if not numbers or batch.number in numbers:
                try:
                    words.append(run_batch(task, self.message(queued, batch), self.ledger, self.access))
                except ObjectsFailed as failed:
                    words.append(str(failed))
        return words

    def copy_all(self) -> None:
        """Drive and copy until nothing is handed out any more."""
        seen = 0
        self.drive()
        while len(self.queued) > seen:
            for queued in self.queued[seen:]:
                seen += 1
                self.copy(queued)
            self.drive()

    def message(self, queued: QueuedBatches, batch: Batch) -> BatchMessage:
        return batch_message(self.spec, batch, queued.series)

    def remove(self, *addresses: Address, at: Path | None = None) -> None:
        """Let objects vanish from the destination, as another program might."""
        for address in addresses:
            ((at or self.destination) / object_key(address)).unlink()

    def published(self) -> list[SnapshotId]:
        return self.store.list_manifest_ids() if self.destination.exists() else []

    def let_time_pass(self, seconds: float) -> None:
        """Let everything of the job look so much older."""
        client = self.ledger._redis
        moved = float(client.hget("snapferry:job:job", "moved_at") or 0)
        client.hset("snapferry:job:job", "moved_at", moved - seconds)
        leases: Any = client.zrange("snapferry:job:job:leases", 0, -1, withscores=True)
        for name, ends in leases:
            client.zadd("snapferry:job:job:leases", {name: ends - seconds})

    def rows(self) -> list[tuple[str, str]]:
        return [(row.id, row.state) for row in snapshot_rows(self.ledger, self.spec.job_id)]


def snapshots(fleet: Fleet, count: int, *, shared: int = 20, own: int = 4) -> list[SnapshotId]:
    """Fill the source with snapshots that have *shared* objects in common and *own* ones each; return their ids."""
    base = random_files(shared, seed=7)
    ids = []
    for number in range(count):
        random_ = random.Random(1000 + number)
        files = base | {f"./own/{n}": random_.randbytes(100 + number) for n in range(own)}
        ids.append(make_store(fleet.source, files))
    return ids


def estimate_of(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.ledger.field("job", "estimate"))
    return found
