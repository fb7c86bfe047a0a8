"""The rows of the files, as CSV and as JSON documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from . import spreadsheet

Document = Mapping[str, Any]

JOB_COLUMNS: Final = (
    "job", "action", "state", "superseded", "continues", "continued_by", "bounded", "paused", "cancelling", "dry_run",
    "priority", "queue", "source", "destination", "snapshot", "snapshots.total", "snapshots.published",
    "snapshots.verified", "snapshots.fetched", "snapshots.trusted", "snapshots.failed", "objects.total",
    "objects.copied", "objects.present", "objects.failed", "objects.healed", "bytes.total", "bytes.copied",
    "progress.objects", "progress.bytes", "progress.share", "progress.bytes_per_second", "progress.seconds_left",
    "deleted", "limits.bytes_per_second", "limits.requests_per_second", "limits.objects_in_flight", "submitted",
    "started", "moved", "ended", "seconds", "error", "dismissed.at", "dismissed.by", "dismissed.why",
    "partly_planned",
)  # fmt: skip
"""The columns of the list of jobs: fields of the document of a job, with dots before fields of fields."""

FAILURE_COLUMNS: Final = (
    "address", "manifest", "size", "error", "store", "detail", "attempts", "worker", "places_total", "snapshot", "path",
)  # fmt: skip
"""The columns of the list of failed objects. An object has a row for each of its places, or one row without a place."""


def jobs_csv(documents: Iterable[Document]) -> Iterator[str]:
    """Yield a CSV file of jobs."""
    rows = ([_field(found, name) for name in JOB_COLUMNS] for found in documents)
    return spreadsheet.lines(JOB_COLUMNS, rows)


def jobs_json(documents: Iterable[Document]) -> Iterator[str]:
    """Yield a JSON list of jobs, one a line."""
    before = "[\n"
    for found in documents:
        yield before + json.dumps(found)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def failures_csv(documents: Iterable[Document]) -> Iterator[str]:
    """Yield a CSV file of failed objects."""
    rows = (row for found in documents for row in _rows_of_failure(found))
    return spreadsheet.lines(FAILURE_COLUMNS, rows)


def failures_json(documents: Iterable[Document]) -> Iterator[str]:
    """Yield failed objects, one JSON document a line, as ``snapferry failures --json`` prints them."""
    for found in documents:
        yield json.dumps(found) + "\n"


def _rows_of_failure(found: Document) -> Iterator[list[Any]]:
    fields = [found[name] for name in FAILURE_COLUMNS[:-2]]
    for place in found["places"] or [{"snapshot": None, "path": None}]:
        yield [*fields, place["snapshot"], place["path"]]


def _field(found: Document, name: str) -> Any:
    value: Any = found
    for part in name.split("."):
        value = None if value is None else value.get(part)
    return value
