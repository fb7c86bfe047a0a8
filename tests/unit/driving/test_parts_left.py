"""What the end of a job does about objects whose copies in parts were begun and not ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving.dispatch import queue_removal_of_parts
from snapferry.workers.ledger import Ledger, PartsOf, State
from snapferry.workers.messages import BatchMessage
from snapferry.workers.queues import COPY_QUEUE
from tests.unit.ledger.support import address, batch, request


class App:
    """Keeps the tasks that were queued: name, message and queue. *driven*: the pauses before drives."""

    def __init__(self) -> None:
        self.queued: list[tuple[str, dict[str, Any], str]] = []
        self.driven: list[float] = []

    def signature(self, name: str, *, args: tuple[Any], immutable: bool) -> Any:
        app = self

        class Signature:
            def set(self, *, argsrepr: str, kwargsrepr: str, queue: str = "") -> Signature:
                assert argsrepr
                assert not kwargsrepr
                self.queue = queue
                return self

            def apply_async(self, *, countdown: float | None = None, headers: object = None) -> None:
                assert immutable
                if name == "snapferry.look_after_job":
                    assert countdown is not None
                    assert args == ("job",)
                    app.driven.append(countdown)
                else:
                    app.queued.append((name, args[0], self.queue))

        return Signature()


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ledger = Ledger(client, expires_s=3600)
        ledger.create(request())
        ledger.advance("job", State.COPYING, objects_total=3, bytes_total=3, batches_total=3)
        yield ledger


def removal(ledger: Ledger) -> list[tuple[str, dict[str, Any], str]]:
    app: Any = App()
    queue_removal_of_parts(app, ledger, "job")
    queued: list[tuple[str, dict[str, Any], str]] = app.queued
    return queued


def test_workers_are_asked_to_remove_what_is_left_and_only_that(ledger: Ledger) -> None:
    assert removal(ledger) == []
    for number in range(2):
        of = PartsOf("job", f"{number}a")
        ledger.begin_parts(of, address(number), batch(number, 1, first=number).model_dump_json())
        ledger.offer_parts(of, [0, 1])
    ledger.end_parts("job", address(0))

    ((name, message, queue),) = removal(ledger)
    assert (name, queue) == ("snapferry.copy_parts", COPY_QUEUE)
    assert BatchMessage.model_validate(message) == batch(1, 1, first=1)
    keys = set(map(str, ledger.client.scan_iter("snapferry:job:job:parts:*")))
    assert keys == {"snapferry:job:job:parts:1a:todo"}


def test_what_strangers_have_written_there_is_left_out(ledger: Ledger) -> None:
    other = batch(0, 1, job_id="other").model_dump_json()
    for number, text in enumerate(("", "x", "a {}", f"a {other}", "a [1]", f"../{other}")):
        ledger.client.hset("snapferry:job:job:parts", str(number), text)
    assert removal(ledger) == []
    ledger.end_parts("job", address(5))


@pytest.mark.parametrize(("ended_s", "pause_s"), [(0, 10), (100, 100), (5000, 600), (25 * 3600, None)])
def test_a_message_may_be_lost_so_the_job_is_driven_again_while_parts_are_left(
    ledger: Ledger, ended_s: float, pause_s: float | None
) -> None:
    app: Any = App()
    ledger.advance("job", State.CANCELLED)
    queue_removal_of_parts(app, ledger, "job")
    assert app.driven == []

    ledger.begin_parts(PartsOf("job", "1a"), address(1), batch(1, 1, first=1).model_dump_json())
    ended_at = ledger.status("job").ended_at
    assert ended_at > 0
    ledger.client.hset("snapferry:job:job", "ended_at", ended_at - ended_s)
    queue_removal_of_parts(app, ledger, "job")
    assert len(app.queued) == 1
    assert [round(pause, -1) for pause in app.driven] == ([] if pause_s is None else [pause_s])
