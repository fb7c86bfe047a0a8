"""What is left of a job that failed."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.driving.ending import fail_job
from snapferry.orchestrator.driving.steps import abandon
from snapferry.workers.ledger import State

from .fleet import Fleet


def test_a_job_that_fails_leaves_no_object_unsettled(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0)
    copied = fleet.status.copied

    fail_job(fleet.ledger, "job", "the reason")

    status = fleet.status
    assert (status.state, status.error) == (State.FAILED, "the reason")
    assert status.objects_settled == status.objects_total
    assert (status.copied, status.failed) == (copied, status.objects_total - copied)
    assert all("the reason" in failed.failure.detail for failed in fleet.ledger.failures("job"))


def test_a_job_that_fails_without_its_plan_at_hand_can_be_resumed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.drive()
    monkeypatch.setattr(abandon, "recalled", lambda *_: None)

    fail_job(fleet.ledger, "job", "the reason")

    assert (fleet.status.state, fleet.status.failed) == (State.FAILED, 0)
