"""What a process keeps of the chords that it has queued. An orchestrator queues chords for months."""

from __future__ import annotations

import gc

import redis
from celery.result import AsyncResult

from snapferry.orchestrator.driving import dispatch
from snapferry.orchestrator.planning.batches import Batch
from snapferry.stores.hashing import digest
from snapferry.workers.app import make_app
from snapferry.workers.messages import JobSpec, StoreRef, encode_addresses
from snapferry.workers.settings.environment import Settings

SPEC = JobSpec(
    job_id="6f1d3c52-6a4b-4e2a-9c0e-0d3b7c1f2a10",
    snapshots=encode_addresses([digest(b"")]),
    source=StoreRef(url="/a"),
    destination=StoreRef(url="/b"),
    batch_objects=5,
    batch_bytes=10**6,
)


def alive() -> int:
    gc.collect()
    return sum(isinstance(each, AsyncResult) for each in gc.get_objects())


def test_a_process_keeps_nothing_of_the_chords_it_queued(redis_url: str) -> None:
    app = make_app(Settings(broker_url=redis_url), serves=False)
    batches = [Batch.of(number, {digest(b"%d" % number): 1}, (number,)) for number in range(3)]
    before = alive()

    for _ in range(5):
        dispatch.queue_batches(app, SPEC, batches, series="plan", of=3, snapshots="95ff19…")

    assert alive() == before
    with redis.Redis.from_url(redis_url) as client:
        queued = sum(client.llen(key) for key in client.scan_iter() if client.type(key) == b"list")
        assert (queued, client.pubsub_channels("celery-task-meta-*")) == (15, [])
