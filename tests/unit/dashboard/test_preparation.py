"""After its preparation the dashboard does for the first page what it does for each other."""

from __future__ import annotations

import jinja2
import pytest

from snapferry.orchestrator.dashboard import pages, preparation
from snapferry.orchestrator.dashboard.views.job import job_page
from snapferry.orchestrator.dashboard.views.jobs import jobs_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.workers.ledger import Ledger

from .states import STATES
from .support import page
from .test_jobs_list import add, noted


def test_the_first_page_compiles_no_template_and_reads_no_job_that_has_ended_again(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        add(ledger, f"x{number}", "done", "/a", "/b", submitted=100 + number)
    STATES["running"](ledger)
    pages._environment.cache_clear()
    read = noted(ledger, "entries", monkeypatch)
    preparation.prepare(sources)
    assert len(read) >= 101

    def compiled(*_: object, **__: object) -> None:
        pytest.fail("a template is compiled")

    monkeypatch.setattr(jinja2.Environment, "compile", compiled)
    read.clear()
    page("jobs.html", **jobs_page(sources, {}))
    page("job.html", **job_page(sources, "job"))
    assert set(read) == {"job"}


def test_preparation_begins_no_search_for_paths(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    STATES["all_failed"](ledger)
    monkeypatch.setattr(sources.lookup, "find", lambda *_, **__: pytest.fail("paths are looked up"))
    preparation.prepare(sources)


def test_an_error_is_left_to_the_page_that_shows_it(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Sources) -> None:
        raise ValueError("nonsense in Redis")

    monkeypatch.setattr(preparation, "workers_page", broken)
    preparation.prepare(sources)
    assert "pages not prepared" in caplog.text
