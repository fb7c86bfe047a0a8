"""Jobs as a list needs them: what they are sorted and searched by, of thousands of jobs at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from snapferry.stores.text.printable import printable
from snapferry.workers.job_state import State, partly_planned
from snapferry.workers.messages import is_job_id
from snapferry.workers.redis_json import parse_json

from .queries import mirror_of

FIELDS: Final = (
    "state", "source", "destination", "schedule", "action", "continued_by", "chain_schedule",
    "dismissed_at", "submitted_at", "started_at", "ended_at",
    "objects_total", "objects_settled", "copied", "present", "failed", "bytes_copied", "snapshots_total",
    "published", "trusted", "snapshots_planned",
)  # fmt: skip
"""The fields of the record that make up an entry."""

_TEXTS: Final = 8

_LONGEST_TEXT: Final = 1024

_is_number: Final = re.compile(r"-?\d{1,19}(\.\d{1,9})?").fullmatch


@dataclass(frozen=True, slots=True)
class JobEntry:
    """
    A job in a list of all jobs, as `JobStatus` without what lists are not sorted or searched by.

    *schedule* is the mirror or scrub that queued it, as ``mirror:nightly``, "" for none; *action* is "" for a copy.
    *dismissed*: by itself, not as a part of its chain. Counters that somebody damaged are 0.
    """

    job_id: str
    state: State
    source: str
    destination: str
    schedule: str
    action: str
    continued_by: str
    mirror: str
    dismissed: bool
    submitted_at: float
    started_at: float
    ended_at: float
    objects_total: int
    objects_settled: int
    copied: int
    present: int
    failed: int
    bytes_copied: int
    snapshots_total: int
    published: int
    trusted: int
    partly_planned: bool = False


def entries_of(job_ids: Sequence[str], text: str) -> Iterator[JobEntry]:
    """Yield the entries of *job_ids* from the *text* of `ENTRIES`. Jobs without a readable state are left out."""
    for job_id, values in zip(job_ids, parse_json(text), strict=True):
        if values[0] not in _STATES:
            continue
        source, destination, schedule, action, continued_by, chain, dismissed_at = map(
            _text, values[1:_TEXTS]
        )
        submitted_at, started_at, ended_at = map(_number, values[_TEXTS : _TEXTS + 3])
        counters = [int(_number(value)) for value in values[_TEXTS + 3 :]]
        total, settled, copied, present, failed, copied_bytes, snapshots, published, trusted, planned = (
            counters
        )
        yield JobEntry(
            job_id=job_id,
            state=State(values[0]),
            source=source,
            destination=destination,
            schedule=schedule,
            action=action,
            continued_by=continued_by if is_job_id(continued_by) else "",
            mirror=mirror_of(schedule or chain),
            dismissed=bool(dismissed_at),
            submitted_at=submitted_at,
            started_at=started_at,
            ended_at=ended_at,
            objects_total=total,
            objects_settled=settled,
            copied=copied,
            present=present,
            failed=failed,
            bytes_copied=copied_bytes,
            snapshots_total=snapshots,
            published=published,
            trusted=trusted,
            partly_planned=partly_planned(planned, snapshots),
        )


_STATES: Final = frozenset(State)


def _text(value: Any) -> str:
    return printable(str(value or "")[:_LONGEST_TEXT])


def _number(value: Any) -> float:
    return float(value) if value and _is_number(str(value)) else 0.0
