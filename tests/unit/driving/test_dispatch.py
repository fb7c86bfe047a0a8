"""Batches as they are queued."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from snapferry.orchestrator.driving import dispatch
from snapferry.orchestrator.planning.batches import Batch
from snapferry.stores.hashing import digest

from .fleet import Fleet


@pytest.mark.parametrize(("turn", "pause"), [(0, None), (1, 2), (2, 4), (3, 8), (4, 16), (6, 16), (30, 16)])
def test_what_was_queued_in_vain_waits_longer_before_it_begins(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, turn: int, pause: int | None
) -> None:
    headers: list[list[Any]] = []
    callbacks: list[Any] = []

    def chord(header: list[Any], *, app: Celery) -> Any:
        headers.append(header)
        return callbacks.append

    monkeypatch.setattr(dispatch, "chord", chord)
    batches = [Batch.of(number, {digest(b"%d" % number): 1}, (number,)) for number in range(3)]

    dispatch.queue_batches(Celery(), fleet.spec, batches, series="plan", of=3, snapshots="95ff19…", turn=turn)

    (header,), (callback,) = headers, callbacks
    assert [signature.options["countdown"] for signature in header] == [pause] * 3
    assert [signature.options["argsrepr"] for signature in header] == [
        f"job job · 95ff19… · batch {n}/3 · 1 object · 1 B" for n in (1, 2, 3)
    ]
    assert (callback.task, callback.args) == ("snapferry.commit_snapshots", ("job",))
    assert callback.options["link_error"][0].task == "snapferry.commit_snapshots"
