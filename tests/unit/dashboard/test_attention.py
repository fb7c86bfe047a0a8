"""What the first screen says of nodes that are gone, and of jobs that nothing drives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snapferry.orchestrator.dashboard.views import attention
from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page
from snapferry.orchestrator.dashboard.views.schedules import schedules_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.reporting.nodes import Fleet, Node, Presence
from snapferry.orchestrator.reporting.text.status import kept_text, reason_text
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from tests.unit.test_progress import running

from .states import STATES
from .support import page

ONLINE = [Node("w@1", "worker", Presence.ONLINE), Node("o@1", "orchestrator", Presence.ONLINE)]


def silent(*names: str, role: str = "worker") -> list[Node]:
    return [Node(name, role, Presence.SILENT, 40.0) for name in names]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gone", "others", "title", "advice"),
    [
        (silent("w@2"), ONLINE, "Worker w@2 has been silent for 40 s", "Other workers take over"),
        (silent("w@2", "w@3"), ONLINE, "2 workers have been silent for 40 s", "Start them again"),
        (silent("w@2"), ONLINE[1:], "Worker w@2 has been silent for 40 s", "The batches wait"),
        (silent("o@2", role="orchestrator"), ONLINE, "Orchestrator o@2 has", "take over the jobs"),
        ([Node("w@2", "worker", Presence.LEFT, 40.0)], ONLINE, "", ""),
        # It is said that there is none at all.
        (silent("o@2", role="orchestrator"), ONLINE[:1], "", ""),
    ],
)
def test_nodes_that_died_are_told_and_those_that_left_are_not(
    gone: list[Node], others: list[Node], title: str, advice: str
) -> None:
    found = list(attention._of_silent(Fleet([*gone, *others], complete=True)))

    assert [title in one.title and advice in one.advice.sentence for one in found] == [True] * bool(title)


def test_that_no_orchestrator_runs_is_told_with_and_without_jobs_and_on_every_page(
    sources: Sources, ledger: Ledger
) -> None:
    (alone,) = jobs_page(sources, {})["attentions"]
    STATES["queued"](ledger)
    found = jobs_page(sources, {})
    (waits,) = found["attentions"]
    of_job = job_page(sources, "job")
    page("jobs.html", **found)
    page("schedules.html", **schedules_page(sources))

    assert (alone.title, alone.advice.command) == ("No orchestrator is online", "snapferry orchestrator")
    assert waits.title == "No orchestrator is online: 1 open job waits"
    assert found["orchestrators"] == 0
    assert "no orchestrator is running" in found["lines"][0].stall
    assert "no orchestrator is running" in of_job["line"].stall
    assert of_job["advice"].command == "snapferry orchestrator"
    assert schedules_page(sources)["headless"]

    OrchestratorRoster(ledger.client).announce("orchestrator@one")
    assert jobs_page(sources, {})["attentions"] == []
    assert not schedules_page(sources)["headless"]


def test_a_failure_names_its_error_and_what_is_kept() -> None:
    failed = replace(
        running(), state=State.FAILED, cause="ObjectMissing", error="2 of 9 objects.", failed=2, copied=5, present=1,
        objects_total=9,
    )  # fmt: skip

    assert reason_text(failed) == "2 of 9 objects. The error of most of them: ObjectMissing."
    assert reason_text(replace(failed, failed=0)) == "2 of 9 objects."
    assert reason_text(replace(failed, error="ObjectMissing: x")) == "ObjectMissing: x"
    assert kept_text(failed).startswith("6 of 9 objects are at the destination")
    assert "unchanged" in kept_text(replace(failed, copied=0, present=0))
    assert kept_text(replace(failed, state=State.DONE)) == ""


def test_what_made_a_failed_job_good_is_said(sources: Sources, ledger: Ledger) -> None:
    STATES["later_run_done"](ledger)
    found = job_page(sources, "job")

    assert found["over"] == "A later run of mirror nightly is done: nothing is left to do."
    assert found["kept"] == ""
    assert not found["advice"]
    assert found["over"] in page("job.html", **found)
