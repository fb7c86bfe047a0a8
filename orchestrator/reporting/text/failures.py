"""Failed objects in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.reporting.documents import FAILURES_IN_JSON
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import FAILURES_KEPT, JobStatus

# Kinds of failures that are listed.
KINDS_SHOWN: Final = 10

# Failed objects whose paths are listed at the end of a job.
LETTERS_SHOWN: Final = 20

IMPORTED: Final = "The record of the job comes from an export, which does not say which objects failed."
"""Instead of the failed objects of a job that was imported."""

# Paths that are listed of a failed object.
PLACES_SHOWN: Final = 20


def failure_lines(letters: Iterable[DeadLetter], total: int) -> list[str]:
    """Return failures in words, a line for each kind; *total* objects failed in all."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for letter in letters:
        if letter.known is not None:
            failure = letter.known.failure
            kind = failure.error, failure.store, letter.reason
            alike.setdefault(kind, []).append(letter.path or failure.address)
    kinds = list(alike.items())[:KINDS_SHOWN]
    lines = [
        printable(f"  {len(names):,} x {error} at {store}: {detail} ({names[0]}{', ...' * (len(names) > 1)})")
        for (error, store, detail), names in kinds
    ]
    shown = sum(len(names) for _, names in kinds)
    if total > shown:
        lines.append(f"  and {total - shown:,} more (--json lists the first {FAILURES_IN_JSON:,})")
    return lines


def places_lines(letters: Iterable[DeadLetter]) -> list[str]:
    """
    Return the snapshots and paths that need failed objects, for the first objects whose paths are known.

    Of files there are only the paths, and none of a single one, which `failure_lines` names.
    """
    placed = [letter for letter in letters if letter.places]
    if len(placed) == 1 and placed[0].path:
        return []
    lines: list[str] = []
    for letter in placed[:LETTERS_SHOWN]:
        lines += (
            [printable(f"  {letter.path}")] if letter.path else [f"  {letter.address}", *_place_lines(letter)]
        )
    if len(placed) > LETTERS_SHOWN:
        kind = "other file" if placed[0].path else "other object"
        lines.append(f"  and {counted(len(placed) - LETTERS_SHOWN, kind)}; --json lists them")
    return lines


def manifest_line(row: SnapshotRow) -> str:
    """Return a snapshot whose manifest could not be read, with the reason."""
    return printable(f"{row.id}  its manifest could not be read: {row.reason}")


def failures_head(status: JobStatus, by_class: Mapping[str, int]) -> str:
    """Return how many objects of a job failed, by class of error."""
    if not status.failed:
        return f"no object failed in job {status.job_id}"
    classes = f": {classes_text(by_class)}" if by_class else ""
    return printable(f"{counted(status.failed, 'object')} failed in job {status.job_id}{classes}")


def letter_lines(letter: DeadLetter) -> list[str]:
    """Return a failed object or file in words: why, and for an object the snapshots and paths that need it."""
    name = printable(letter.path or letter.address)
    if letter.known is None:
        lines = [f"{name}  reason not kept: only the first {FAILURES_KEPT:,} failures have one"]
    else:
        failure = letter.known.failure
        lines = [
            f"{name}  {printable(f'{failure.error} at {failure.store}: {letter.reason}')}",
            printable(f"    tried {counted(letter.known.attempts, 'time')}, last by {letter.known.worker}"),
        ]
    return lines if letter.path else lines + _place_lines(letter)


def _place_lines(letter: DeadLetter) -> list[str]:
    shown = letter.places[:PLACES_SHOWN]
    lines = [f"    {short(snapshot_id)}  {printable(path)}" for snapshot_id, path in shown]
    if letter.places_total > len(shown):
        lines.append(f"    and {letter.places_total - len(shown):,} more")
    return lines


def classes_text(by_class: Mapping[str, int]) -> str:
    """Return counts by class of error, such as ``1 IntegrityError, 2 ObjectMissing``."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(by_class.items()))
