"""What a drive came to can be put into words."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.driving.outcome import DriveOutcome, PlanSize, Result
from snapferry.orchestrator.reporting.text.drive import describe_drive
from snapferry.workers.ledger import State


@pytest.mark.parametrize("result", Result)
def test_every_result_has_a_text_of_its_own(result: Result) -> None:
    texts = {describe_drive(DriveOutcome(result=other)) for other in Result if other is not result}

    assert describe_drive(DriveOutcome(result=result)) not in {"", *texts}


def test_a_text_has_the_reason_and_the_counts() -> None:
    outcome = DriveOutcome(
        result=Result.FAILED,
        reason="the reason",
        planned=PlanSize(snapshots=11, objects=12, size_bytes=13, batches=14),
        requeued=15,
        abandoned=16,
        queued=17,
        published=18,
        unpublished=19,
        healing=20,
    )

    text = describe_drive(outcome)

    assert all(str(count) in text for count in range(11, 21))
    assert "the reason" in text
    assert "cancelled" in describe_drive(DriveOutcome(result=Result.ALREADY_ENDED, state=State.CANCELLED))
    assert "21" in describe_drive(DriveOutcome(result=Result.CANCELLING, running=21))
