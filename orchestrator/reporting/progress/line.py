"""The progress of a job in one line, and the parts of that line."""

from __future__ import annotations

from typing import Final, Literal

from snapferry.orchestrator.reporting.measures import percent, rate
from snapferry.orchestrator.reporting.nodes import Lack
from snapferry.orchestrator.reporting.text.status import (
    at_least,
    objects_in_states,
    stall_text,
    state_text,
    time_left_text,
)
from snapferry.stores.text.format import counted, size
from snapferry.workers.copying.words import WORDS
from snapferry.workers.ledger import JobStatus

Part = Literal["snapshots", "objects", "failed", "bytes", "rate", "left"]

SPARED: Final[tuple[Part, ...]] = ("bytes", "rate", "snapshots", "objects", "left", "failed")
"""The parts in the order in which a narrow terminal leaves them out."""


def progress_text(status: JobStatus, lacks: Lack = None) -> str:
    """Return the progress of a job in one line. *lacks* as for `stall_text`."""
    stage = stall_text(status, lacks) or state_text(status)
    if not status.objects_total:
        return stage
    shown = parts(status, of=" of ")
    # Failed objects are settled, too.
    shown["objects"] += f" ({objects_in_states(status)})"
    shown.pop("failed", None)
    share = [] if status.partly_planned else [f"{percent(status)}%"]
    return f"{stage}: {', '.join([*share, *shown.values()])}"


def parts(status: JobStatus, *, of: str) -> dict[Part, str]:
    """
    Return the parts of a job's progress, each with a number; *of* stands between what is done and the total.

    A part that says nothing is left out, such as snapshots if there is only one.
    """
    if not status.objects_total:
        return {}
    found: dict[Part, str] = {}
    of_plan = f" of {least}" if (least := at_least(status)) else of
    if status.snapshots_total > 1:
        found["snapshots"] = f"{status.snapshots_settled:,}{of}{counted(status.snapshots_total, 'snapshot')}"
    objects = counted(status.objects_total, WORDS[status.action].unit)
    found["objects"] = f"{status.objects_settled:,}{of_plan}{objects}"
    if status.failed:
        found["failed"] = f"{status.failed:,} failed"
    found["bytes"] = f"{size(status.bytes_settled)}{of_plan}{size(status.bytes_total)}"
    if speed := rate(status):
        found["rate"] = f"{size(speed)}/s"
    if left := time_left_text(status):
        found["left"] = left
    return found
