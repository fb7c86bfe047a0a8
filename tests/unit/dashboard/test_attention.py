"""What the first screen says of nodes that are gone, and of jobs that nothing drives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snapferry.orchestrator.dashboard.views import attention
from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page
from snapferry.orchestrator.dashboard.views.schedules import schedules_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.doctor.schedules import check_schedules
from snapferry.orchestrator.notify.decide import Event
from snapferry.orchestrator.notify.facts import standings_of
from snapferry.orchestrator.notify.texts import compose
from snapferry.orchestrator.reporting.nodes import Fleet, Node, Presence
from snapferry.orchestrator.reporting.text.status import kept_text, reason_text
from snapferry.workers.ledger import Expected, FreshnessLedger, Ledger, ScheduleLedger, State
from snapferry.workers.ledger.schedules import entry_name
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from snapferry.workers.settings.environment import Settings
from snapferry.workers.settings.notify_table import EventKind, Notify
from tests.unit.test_progress import running

from .states import STATES
from .support import page
from .test_jobs_list import add

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


def failed_runs(ledger: Ledger, name: str, count: int) -> None:
    for number in range(count):
        add(
            ledger,
            f"{name}-{number}",
            "failed",
            "/a",
            "/b",
            submitted=number,
            error="2 of 9 objects.",
            failed=2,
        )
        ledger.client.hset(f"snapferry:job:{name}-{number}", "schedule", f"mirror:{name}")
    if count:
        ScheduleLedger(ledger.client, "mirror").started(name, f"{name}-0")


def expect(ledger: Ledger, *names: str, late: bool = True, next_in: float | None = 600) -> None:
    """Let mirrors be expected, and maybe late; their next run is due so many seconds from now."""
    freshness = FreshnessLedger(ledger.client)
    freshness.expect([Expected("mirror", name, "1h") for name in names], replace=True)
    for name in names:
        ledger.client.hset(f"snapferry:mirror:{name}", "since", freshness.now() - (9000 if late else 0))
        if next_in is not None:
            key = f"snapferry:beat:{entry_name('mirror', name)}"
            ledger.client.zadd("snapferry:beat::schedule", {key: freshness.now() + next_in})


def wrong(sources: Sources, ledger: Ledger) -> list[attention.Attention]:
    """Return what the first screen shows, apart from orchestrators and workers."""
    OrchestratorRoster(ledger.client).announce("orchestrator@one")
    found: list[attention.Attention] = jobs_page(sources, {})["attentions"]
    page("jobs.html", **jobs_page(sources, {}))
    return found


def test_the_failed_runs_of_a_mirror_are_one_thing_with_its_name(sources: Sources, ledger: Ledger) -> None:
    failed_runs(ledger, "nightly", 9)
    add(ledger, "alone", "failed", "/a", "/b", submitted=0, error="gone")
    expect(ledger, "nightly", late=False)
    in_time = wrong(sources, ledger)
    expect(ledger, "nightly")
    late = wrong(sources, ledger)
    expect(ledger, "nightly", next_in=-3600)
    abandoned = wrong(sources, ledger)

    assert [one.href for one in in_time] == ["/jobs/alone", "/jobs/nightly-0"]
    assert [one.href for one in late] == ["/jobs/alone", "/jobs/nightly-0"]
    assert in_time[0].title.startswith("Job alone failed")
    assert in_time[1].title.startswith("Mirror nightly: 9 jobs failed, the last ")
    assert "late for" not in in_time[1].title
    assert late[1].title.endswith("; late for 30 min")
    # No other run follows: that is a cause of its own.
    assert [one.href for one in abandoned] == ["/jobs/alone", "/jobs/nightly-0", "/schedules"]
    assert "late for" not in abandoned[1].title
    assert late[1].advice.command == "snapferry retry nightly-0"


def test_many_failed_jobs_hide_nothing_else(sources: Sources, ledger: Ledger) -> None:
    for number in range(40):
        add(ledger, f"job-{number:02}", "failed", "/a", "/b", submitted=number, error="gone")
    expect(ledger, "nightly", next_in=-3600)
    found = wrong(sources, ledger)

    assert [one.href for one in found] == [
        "/jobs/job-00", "/jobs/job-01", "/jobs/job-02", "/schedules", "/?state=failed",
    ]  # fmt: skip
    assert found[-1].title == "37 more jobs failed"


@pytest.mark.parametrize(
    ("runs", "next_in", "command"),
    [
        (0, None, "snapferry scheduler"),
        (0, -3600, "snapferry scheduler"),
        (0, 600, "snapferry mirrors"),
        (1, 600, "snapferry retry nightly-0"),
        # No other run follows.
        (1, -3600, "snapferry scheduler"),
    ],
)
def test_the_dashboard_doctor_and_notifications_advise_the_same_about_lateness(
    sources: Sources, ledger: Ledger, runs: int, next_in: float | None, command: str
) -> None:
    failed_runs(ledger, "nightly", runs)
    expect(ledger, "nightly", next_in=next_in)
    client = ledger.client
    (fresh,) = FreshnessLedger(client).freshness()
    found = list(attention._of_late(attention._late(sources, Fleet()).values()))
    (checked,) = (one for one in check_schedules(client, Settings()) if one.check == "schedules.late")
    event = Event(EventKind.LATE, "mirror:nightly", fresh.late_at, None, fresh)
    told = compose([event], standings_of(ledger, [event]), Notify(), fresh.now)

    assert [one.advice.command for one in found] == [command]
    assert checked.advice.endswith(f": {command}")
    assert f"\n    {command}\n" in told.body


def test_mirrors_that_are_late_for_one_cause_are_one_thing(sources: Sources, ledger: Ledger) -> None:
    expect(ledger, "a", "b", "c", "d", "e", "f", next_in=-3600)
    (found,) = wrong(sources, ledger)

    assert found.title == "6 mirrors are late, the first for 30 min"
    assert found.reason == "No scheduler works on their schedules. a, b, c, d, e and 1 more"
    assert (found.advice.command, found.href) == ("snapferry scheduler", "/schedules")


def test_what_keeps_the_jobs_of_late_mirrors_comes_first(sources: Sources, ledger: Ledger) -> None:
    expect(ledger, "a", "b")
    for name in ("a", "b"):
        add(ledger, name, "copying", "/a", "/b", submitted=1)
        ScheduleLedger(ledger.client, "mirror").started(name, name)
    cause, effect = wrong(sources, ledger)

    assert cause.title == "No worker is online: 2 open jobs wait"
    assert effect.title == "2 mirrors are late, the first for 30 min"
    assert effect.reason == "Their last jobs have not ended. a, b"
    assert cause.advice.command == effect.advice.command == "snapferry worker"
