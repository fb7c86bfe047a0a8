"""A job whose plan still grows: no share, and totals that are at least what is planned."""

from __future__ import annotations

from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.workers.ledger import Ledger

from .states import BATCHES, OBJECTS, planned
from .support import Shown, page


def test_pages_show_totals_as_at_least_until_the_plan_is_complete(sources: Sources, ledger: Ledger) -> None:
    planned(ledger)
    ledger.set_fields("job", snapshots_planned=1)

    job = Shown(page("job.html", **job_page(sources, "job")))
    jobs = Shown(page("jobs.html", **jobs_page(sources, {})))

    assert job.figures["Objects"] == f"0 of at least {OBJECTS}"
    assert job.figures["Batches"].startswith(f"0 of at least {BATCHES}")
    assert "of at least" in job.figures["Bytes"]
    assert f"0 of at least {OBJECTS} objects" in jobs.text
    assert job.bars == jobs.bars == []

    ledger.set_fields("job", snapshots_planned=2)

    job = Shown(page("job.html", **job_page(sources, "job")))
    jobs = Shown(page("jobs.html", **jobs_page(sources, {})))
    assert "at least" not in job.text + jobs.text
    assert len(job.bars) == len(jobs.bars) == 1
