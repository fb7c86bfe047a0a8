"""What is shown of objects that several workers copy in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from snapferry.orchestrator.reporting.measures import Stall, stall
from snapferry.orchestrator.reporting.text.status import status_lines
from snapferry.workers.ledger import Ledger, ObjectInParts, PartsOf, RunningBatch, State

from .support import address, batch, request

OF = PartsOf("job", "1a")


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ledger = Ledger(client, expires_s=3600)
        ledger.create(request())
        ledger.advance("job", State.COPYING, objects_total=1, bytes_total=1, batches_total=1)
        yield ledger


def begin(ledger: Ledger) -> int:
    message = batch(0, 1)
    ledger.begin_parts(OF, address(0), message.model_dump_json())
    ledger.offer_parts(OF, range(8))
    return sum(message.sizes)


def test_the_parts_that_are_done_and_the_workers_that_copy_others_are_shown(ledger: Ledger) -> None:
    size = begin(ledger)
    assert ledger.objects_in_parts("job") == [ObjectInParts(address(0), size, 8, 0)]

    holder = "other#parts1@two@host"
    for _ in range(2):
        ledger.claim_part(OF, "id#parts0@one@host", 8)
    part = ledger.claim_part(OF, holder, 8)
    assert part is not None
    ledger.finish_part(OF, holder, part, "a record")
    ledger.claim_part(OF, holder, 8)

    assert ledger.objects_in_parts("job") == [ObjectInParts(address(0), size, 8, 1, ("one@host", "two@host"))]

    # The claim of a dead worker ends by itself.
    ledger.client.zadd("snapferry:job:job:parts:1a:todo", {"00000": 1, "00001": 1})
    assert ledger.objects_in_parts("job") == [ObjectInParts(address(0), size, 8, 1, ("two@host",))]

    ledger.end_parts("job", address(0), OF.upload)
    assert ledger.objects_in_parts("job") == []


def test_what_strangers_have_written_there_is_left_out(ledger: Ledger) -> None:
    size = begin(ledger)
    for number, text in enumerate(("", "x", "a {}", "a [1]", f"../{batch(0, 1).model_dump_json()}"), 1):
        ledger.client.hset("snapferry:job:job:parts", address(number), text)
    ledger.client.hset("snapferry:job:job:parts", "no address", f"1a {batch(0, 1).model_dump_json()}")
    assert ledger.objects_in_parts("job") == [ObjectInParts(address(0), size, 8, 0)]


def test_a_job_whose_parts_are_copied_does_not_wait_for_a_worker(ledger: Ledger) -> None:
    """After the death of the worker that had the batch, others copy on, and the batch waits until one is free."""
    begin(ledger)
    quiet = replace(ledger.status("job"), moved_at=1.0, submitted_at=1.0)
    assert stall(quiet) is Stall.WORKER

    ledger.claim_part(OF, "id#parts0@one@host", 8)
    shown = replace(quiet, in_parts=tuple(ledger.objects_in_parts("job")))
    assert stall(shown) is None
    assert [line for line in status_lines(shown, {}) if "one@host" in line]

    # Until its lease ends, the dead worker still has the batch.
    dead = RunningBatch("job", "plan:0", "dead@host", 0, 0, in_flight=1, moved_at=1.0)
    assert stall(replace(quiet, running=(dead,), workers=("dead@host",))) is Stall.BATCHES
    assert stall(replace(shown, running=(dead,), workers=("dead@host",))) is None
    hangs = replace(dead, worker="one@host")
    assert stall(replace(shown, running=(hangs,), workers=("one@host",))) is Stall.BATCHES
