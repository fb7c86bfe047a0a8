"""A job with one large object that is copied in parts, in this process."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.stores.access import TRUSTED
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.stores.pools.in_parts import PartsCopy, can_copy_in_parts
from snapferry.workers.copying import batch_report
from snapferry.workers.copying.delivery import run_batch
from snapferry.workers.copying.parts import claims, owner, sizes, threads
from snapferry.workers.copying.parts.asking import message_for
from snapferry.workers.copying.parts.joining import join_copy
from snapferry.workers.copying.settle import ObjectsFailed
from snapferry.workers.ledger import Ledger, PartsOf, State
from snapferry.workers.ledger.steps import parts as claims_of_parts
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef, encode_addresses
from tests.opening import open_store
from tests.servers import S3Server
from tests.unit.bound_task import BoundTask

PART = 16 * 1024
PARTS = 12
LARGE = random.Random(3).randbytes(PARTS * PART - 5)
ADDRESS = digest(LARGE)
KEY = object_key(ADDRESS)


@dataclass
class World:
    """
    A job with one large object, from a bucket to a place of some kind, and what is done before each part is copied.

    *copied*: the parts that were copied, by whichever worker.
    """

    ledger: Ledger
    batch: BatchMessage
    server: S3Server
    bucket: str
    before: Callable[[int], object] = lambda _: None
    copied: list[int] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)

    @property
    def to(self) -> str:
        return self.batch.destination.url

    @property
    def message(self) -> BatchMessage:
        return message_for(self.batch, ADDRESS)

    def run(self, retries: int = 0) -> str:
        """Run the batch as its worker does; return how it ended, in words."""
        task: Any = BoundTask(retries)
        try:
            return run_batch(task, self.batch, self.ledger, TRUSTED)
        except ObjectsFailed as failed:
            return str(failed)

    def join(self, message: BatchMessage | None = None, stay_s: float = 600.0, **info: Any) -> str:
        """Do what another worker does that is asked to join. *info*: how the message was delivered."""
        task: Any = BoundTask()
        task.request.id = "task"
        task.request.delivery_info = info
        found = join_copy(task, message or self.message, self.ledger, TRUSTED, stay_s)
        self.joined.append(found)
        return found

    def of(self) -> PartsOf:
        """Return the copy that is there now."""
        source, destination = open_store(self.batch.source.url), open_store(self.to)
        with self.attached() as copy:
            assert copy is not None
            assert can_copy_in_parts(source.objects, destination.objects)
            return PartsOf("job", copy.name)

    def attached(self) -> PartsCopy:
        found = PartsCopy.join(
            open_store(self.batch.source.url).objects,
            open_store(self.to).objects,
            ADDRESS,
            "job",
            sizes.LEAST_PART_BYTES,
        )
        assert found is not None
        return found

    def left_over(self) -> list[str]:
        """Return what is left of copies in parts at the destination and in Redis."""
        found = list(self.ledger.client.scan_iter("snapferry:job:job:parts*"))
        if self.to.startswith("s3://"):
            notes = self.server.client.list_objects_v2(Bucket=self.bucket, Prefix="b/.objects/.s")
            found += [one["Key"] for one in notes.get("Contents", ())]
            return found + self.server.unfinished_uploads(self.bucket)
        paths = Path(self.to).rglob(".*")
        return found + [str(path) for path in paths if path.name.startswith((".parts-", ".tmp-"))]

    def assert_copied(self) -> None:
        assert open_store(self.to).get_object(ADDRESS) == LARGE
        status = self.ledger.status("job")
        assert (status.copied, status.present, status.failed) == (1, 0, 0)
        assert (status.bytes_copied, status.bytes_settled) == (len(LARGE), len(LARGE))
        assert self.left_over() == []

    def assert_nothing(self) -> None:
        assert not open_store(self.to).has_object(ADDRESS)
        assert self.left_over() == []

    def replace_source(self, data: bytes) -> None:
        self.server.client.put_object(Bucket=self.bucket, Key=f"a/{KEY}", Body=data)


@pytest.fixture(name="kind", params=["s3", "file"])
def kind_fixture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="world")
def world_fixture(
    rclone_memory_s3: S3Server, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> Iterator[World]:
    for name, value in {"LARGE_BYTES": PART, "LEAST_PART_BYTES": PART, "ANY_SPEED": True}.items():
        monkeypatch.setattr(sizes, name, value)
    monkeypatch.setattr(owner, "LOOK_S", 0.02)
    monkeypatch.setattr(owner, "TIDY_S", 0.1)
    monkeypatch.setattr(threads, "CLAIM_AGAIN_S", 0.02)
    # A claim that a stranger has taken away expires soon.
    monkeypatch.setattr(claims_of_parts, "CLAIM_S", 2)
    monkeypatch.setattr(claims, "RENEW_S", 0.2)
    monkeypatch.setattr(batch_report, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(batch_report, "PAUSE_GRACE_S", 0.1)
    bucket = rclone_memory_s3.make_bucket()
    (tmp_path / "b").mkdir()
    source = StoreRef(url=rclone_memory_s3.url(bucket, "a"))
    to = rclone_memory_s3.url(bucket, "b") if kind == "s3" else str(tmp_path / "b")
    destination = StoreRef(url=to)
    open_store(source.url).put_object(ADDRESS, LARGE)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ledger = Ledger(client, expires_s=3600)
        ids = encode_addresses(["0" * 64])
        ledger.create(JobSpec(
            job_id="job", snapshots=ids, source=source, destination=destination, batch_objects=10, batch_bytes=999,
        ))  # fmt: skip
        ledger.advance("job", State.COPYING, objects_total=1, bytes_total=len(LARGE), batches_total=1)
        batch = BatchMessage(
            job_id="job", series="plan", number=0, source=source, destination=destination,
            addresses=encode_addresses([ADDRESS]), sizes=(len(LARGE),), positions=(0,),
        )  # fmt: skip
        world = World(ledger, batch, rclone_memory_s3, bucket)
        copy_part = PartsCopy.copy_part

        def observed(self: PartsCopy, part: int, *rest: Any) -> None:
            world.before(part)
            copy_part(self, part, *rest)
            world.copied.append(part)

        monkeypatch.setattr(PartsCopy, "copy_part", observed)
        yield world
