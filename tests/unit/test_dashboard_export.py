"""Exports of the dashboard: CSV that no spreadsheet runs, JSON as documented, streams of bounded memory that end."""

from __future__ import annotations

import csv
import http.client
import io
import json
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.dashboard.export import failures, rows, spreadsheet
from snapferry.orchestrator.dashboard.export import handlers as exports
from snapferry.orchestrator.dashboard.export.failures import AT_ONCE, FailureLists
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.ledger.state import Dismissal
from tests.integration.dashboards import Answer

from .dashboard.support import dashboard, sources_of
from .test_dashboard import copying, request

FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "'=1",
    "x;=1",
    "x; @y",
    "\uff1d1",
    "\n+1",
    '"=1',
    ";-1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    found = spreadsheet.cell(text)

    # Whether commas separate cells, or semicolons.
    for part in [found, *found.split(";")]:
        assert part.lstrip(' \t\r\n"')[:1] not in set("=+-@\uff1d\uff0b\uff0d\uff20"), found


def test_other_cells_stay_as_they_are() -> None:
    for text in [
        "",
        "done",
        "s3://a/b",
        "a=b",
        "1-2",
        "2026-01-30T12:00:00",
        "./x",
        "é",
        "a'b",
        'a"b',
        "a,b",
    ]:
        assert spreadsheet.cell(text) == text
    assert [spreadsheet.cell(value) for value in (None, True, False, 7, -7, 0.5)] == [
        "", "true", "false", "7", "-7", "0.5",
    ]  # fmt: skip
    assert spreadsheet.cell("bell\x07 \udcff line\nfeed") == "bell\\x07 \\udcff line\\nfeed"


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_any_text_stays_in_its_cell(table: list[list[str]]) -> None:
    text = "".join(spreadsheet.lines(["a", "b"], table))

    assert [len(row) for row in csv.reader(io.StringIO(text, newline=""))] == [2] * (1 + len(table))
    assert text.count("\n") == 1 + len(table)
    text.encode()


@pytest.fixture
def sources(redis_url: str) -> Sources:
    return sources_of(redis_url)


@pytest.fixture
def ledger(sources: Sources) -> Ledger:
    return sources.jobs._ledger


def table(answer: Answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.body, newline="")))


def test_jobs_are_exported_as_they_are_listed(sources: Sources, ledger: Ledger) -> None:
    copying(ledger, "one", source="=cmd|x")
    ledger.create(request("two"))
    ledger.advance("two", State.FAILED, error='-2+3";=1')
    with dashboard(sources) as served:
        found = served.ask("/export/jobs.json")
        assert found.headers["content-type"] == "application/json"
        assert found.headers["content-disposition"] == 'attachment; filename="snapferry-jobs.json"'
        expected = [status_document(sources.jobs.status(job)) for job in ("two", "one")]
        documents = json.loads(found.body)
        for one in [*documents, *expected]:
            # They go on.
            one.pop("seconds")
        assert documents == expected

        listed = served.ask("/export/jobs.csv")
        assert listed.headers["content-type"] == "text/csv; charset=utf-8"
        assert [(row["job"], row["state"], row["objects.total"]) for row in table(listed)] == [
            ("two", "failed", "0"),
            ("one", "copying", "10"),
        ]
        assert table(listed)[0]["error"] == "'-2+3\";'=1"
        assert table(listed)[1]["source"] == "'=cmd|x"
        assert [row["job"] for row in table(served.ask("/export/jobs.csv?state=failed"))] == ["two"]
        assert json.loads(served.ask("/export/jobs.json?state=done").body) == []
        assert served.ask("/export/jobs.xml").status == 404
        assert served.ask("/export/jobs.csv", method="POST").status == 405
        assert served.ask("/export/jobs.csv", method="HEAD").body == ""
    with dashboard(sources, login=("a", "b")) as served:
        assert served.ask("/export/jobs.csv").status == 401


def test_the_columns_of_jobs_are_fields_of_their_documents(sources: Sources, ledger: Ledger) -> None:
    ledger.create(request("one"))
    dismissed = Dismissal(at=1.0, by="me", why="it is late")
    document = status_document(replace(sources.jobs.status("one"), dismissed=dismissed))
    for name in rows.JOB_COLUMNS:
        value: Any = document
        for part in name.split("."):
            assert part in value, name
            value = value[part]
        assert not isinstance(value, dict | list), name


def test_thousands_of_jobs_are_sent_in_bounded_memory(sources: Sources) -> None:
    document = status_document(_status(sources))
    lines = rows.jobs_json({**document, "job": str(number)} for number in range(3_000))
    tracemalloc.start()
    try:
        sent = sum(len(piece) for piece in exports._pieces(lines))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent > 3_000_000
    assert peak < 1_000_000


def _status(sources: Sources) -> Any:
    sources.jobs._ledger.create(request("one"))
    return sources.jobs.status("one")


class Scripted:
    """A list of failures that the test makes."""

    def __init__(self, documents: Iterator[dict[str, Any]]) -> None:
        self._documents = documents
        self.closed = threading.Event()

    def documents(self) -> Iterator[dict[str, Any]]:
        return self._documents

    def close(self) -> None:
        self.closed.set()


def failure(number: int, *places: str) -> dict[str, Any]:
    return {
        "address": f"{number:064}", "manifest": None, "size": 1, "error": "ObjectMissing", "store": "/a",
        "detail": "=gone", "attempts": 1, "worker": "w",
        "places": [{"snapshot": "5" * 64, "path": path} for path in places], "places_total": len(places),
    }  # fmt: skip


def test_failed_objects_are_exported_with_a_row_for_each_place(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.create(request("job"))
    documents = [failure(1, "./a", "./=b\n"), failure(2)]
    given = [Scripted(iter(documents)), Scripted(iter(documents))]
    opened = iter(given)
    monkeypatch.setattr(FailureLists, "open", lambda *_: next(opened))
    with dashboard(sources) as served:
        found = served.ask("/jobs/job/failures.jsonl")
        assert [json.loads(line) for line in found.body.splitlines()] == documents
        assert found.headers["content-disposition"] == 'attachment; filename="snapferry-failures-job.jsonl"'
        listed = table(served.ask("/jobs/job/failures.csv"))
    assert [(row["address"][-1], row["path"], row["detail"]) for row in listed] == [
        ("1", "./a", "'=gone"),
        ("1", "./=b\\n", "'=gone"),
        ("2", "", "'=gone"),
    ]
    assert all(one.closed.wait(240) for one in given)


def test_a_list_that_ends_early_does_not_look_whole(
    sources: Sources, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.create(request("job"))

    def some(count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield failure(number, "./" + "x" * 1000)
        raise failures.Incomplete("the source went away")

    given = [Scripted(some(1000)), Scripted(some(0))]
    opened = iter(given)
    monkeypatch.setattr(FailureLists, "open", lambda *_: next(opened))
    with dashboard(sources) as served:
        with pytest.raises(http.client.IncompleteRead):
            served.ask("/jobs/job/failures.jsonl")
        refused = served.ask("/jobs/job/failures.jsonl")
        assert (refused.status, "the source went away" in refused.text) == (409, True)
        assert served.ask("/jobs/nobody/failures.csv").status == 404
    assert all(one.closed.wait(240) for one in given)


def test_lists_are_made_in_processes_of_their_own_and_few_at_once(sources: Sources) -> None:
    with FailureLists(sources.jobs._settings) as lists:
        first, second = lists.open("nobody"), lists.open("somebody")
        assert first
        assert second
        assert lists.open("nobody") is None
        assert AT_ONCE == 2
        with pytest.raises(failures.Incomplete, match="record has expired"):
            list(first.documents())
        first.close()
        first.close()
        third = lists.open("nobody")
        assert third
    for killed in (second, third):
        with pytest.raises(failures.Incomplete):
            list(killed.documents())
