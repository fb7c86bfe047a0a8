"""
How each snapshot of a job stands.

While a job runs, the ledger has a row for each snapshot that has ended. When the job has ended, all rows are kept
together, compressed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, Final

from snapferry.orchestrator.planning.snapshots import TRUSTED, UNREADABLE, read_snapshots
from snapferry.workers.copying.commit import SnapshotState
from snapferry.workers.ledger import Ledger
from snapferry.workers.redis_json import parse_json

# The most rows in one field of the record, and the most bytes that are unpacked of it. A reason has at most 1,000
# characters.
ROWS_IN_A_FIELD: Final = 10_000
LARGEST_ROWS: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class SnapshotRow:
    """
    How a snapshot of a job stands. *state* is pending, published, trusted or failed. Sizes in bytes.

    *objects* = copied + present + failed + shared, once it is published: *shared* objects are counted with an earlier
    snapshot of the job. *missing*: how many of its objects, shared ones included, could not be copied. *ended_at*:
    seconds since the epoch.
    """

    id: str
    state: str
    objects: int = 0
    size_bytes: int = 0
    copied: int = 0
    present: int = 0
    shared: int = 0
    missing: int = 0
    ended_at: float = 0.0
    reason: str = ""

    @property
    def values(self) -> list[Any]:
        """The row as the ledger keeps it: without the id."""
        return [getattr(self, field.name) for field in fields(self) if field.name != "id"]

    @property
    def unreadable(self) -> bool:
        """Whether its manifest could not be read, so that it was not planned."""
        return self.state == SnapshotState.FAILED and not self.ended_at


def final_fields(ledger: Ledger, job_id: str) -> dict[str, str | float]:
    """Return the fields of a job's record that keep its rows after its end: ``rows``, ``rows1`` and so on."""
    return rows_of({index: row for group in ledger.groups(job_id).values() for index, row in group.items()})


def rows_of(rows: Mapping[int, list[Any]]) -> dict[str, str | float]:
    """Return the fields of `final_fields` for these *rows*: index of the snapshot -> values of its row."""
    ordered = sorted(rows.items())
    return {
        _field(number): _packed(dict(ordered[at : at + ROWS_IN_A_FIELD]))
        for number, at in enumerate(range(0, len(ordered), ROWS_IN_A_FIELD))
    }


def _field(number: int) -> str:
    return f"rows{number or ''}"


def _packed(rows: dict[int, list[Any]]) -> str:
    text = json.dumps(rows, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(text, 9)).decode()


def _kept_rows(ledger: Ledger, job_id: str) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows of a job that has ended, by the index of the snapshot."""
    for number in count():
        kept = ledger.field(job_id, _field(number))
        if not kept:
            return
        found = parse_json(zlib.decompressobj().decompress(base64.b64decode(kept), LARGEST_ROWS))
        yield from ((int(index), row) for index, row in found.items())


def snapshot_rows(ledger: Ledger, job_id: str) -> Iterator[SnapshotRow]:
    """Yield a row for each snapshot of a job, in the job's order. Raises `snapferry.workers.ledger.UnknownJob`."""
    snapshots = read_snapshots(ledger, ledger.spec(job_id))
    rows = {index: row for group in ledger.groups(job_id).values() for index, row in group.items()}
    rows.update(_kept_rows(ledger, job_id))
    kinds = snapshots.kinds.ljust(len(snapshots.ids))
    for index, (snapshot_id, kind) in enumerate(zip(snapshots.ids, kinds, strict=True)):
        if kind == TRUSTED:
            yield SnapshotRow(snapshot_id, "trusted")
        elif kind == UNREADABLE:
            reason = snapshots.reasons.get(index, "its manifest could not be read at the source")
            yield SnapshotRow(snapshot_id, "failed", reason=reason)
        elif index in rows:
            yield SnapshotRow(snapshot_id, *rows[index])
        else:
            yield SnapshotRow(snapshot_id, "pending")
