"""What a command shows of the job that it follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from snapferry.orchestrator.cli import follow
from snapferry.orchestrator.cli.inputs.show import Show
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting.nodes import Role
from snapferry.orchestrator.reporting.progress import views
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import JobStatus, State, Waiting

from .test_progress import STATUS

AWAY = replace(
    STATUS,
    state=State.COMMITTING,
    moved_at=time.time() - 60,
    waiting=Waiting("file:///b", "the store in this directory is gone", time.time() - 50),
)


class FakeJobs:
    """Shows one status, in a fleet of which nobody has announced itself, and then goes away."""

    def wait(self, job_id: str, look: Callable[[JobStatus], None], **_: Any) -> JobStatus:
        look(AWAY)
        raise BrokerUnavailable("the test is over")

    def lacks(self, status: JobStatus) -> Role:
        return "orchestrator"


@pytest.mark.parametrize("on_fleet", [False, True])
def test_only_a_command_on_a_fleet_asks_which_nodes_run(
    on_fleet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(views, "LINE_EVERY_S", -1.0)
    show = Show(quiet=False, no_progress=False, color="never", as_json=False)
    with pytest.raises((BrokerUnavailable, SystemExit)):
        follow.run(cast(Jobs, FakeJobs()), "1234", show, on_fleet=on_fleet)
    shown = capsys.readouterr().err
    assert ("no orchestrator" in shown) == on_fleet
    assert ("waiting for file:///b" in shown) != on_fleet
