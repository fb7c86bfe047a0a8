"""
What a job that was interrupted has done, and has not.

A batch that stops on the way is not accounted for, so counts of objects are lower bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from snapferry.stores.text.format import counted
from snapferry.workers.ledger import JobStatus
from snapferry.workers.messages import Action


def interrupted_text(status: JobStatus) -> str:
    """
    Return what is kept of a job that was interrupted, in one or two sentences.

    It tells nothing of snapshots if the job has not ended yet.
    """
    return "Nothing was written." if status.dry_run else _TEXTS[status.action](status).rstrip()


def _copied(status: JobStatus) -> str:
    return f"Copied objects are kept, none is half-written. {_published(status)}"


def _pushed(status: JobStatus) -> str:
    return f"Pushed objects are kept, none is half-written. {_published(status)}"


def _published(status: JobStatus) -> str:
    if not status.state.final:
        return ""
    if not status.snapshots_there:
        return "No snapshot was published."
    if status.snapshots_total == 1:
        return f"Snapshot {status.first_snapshot} is published."
    return f"{counted(status.snapshots_there, 'snapshot', of=status.snapshots_total, verb='is')} published."


def _pulled(status: JobStatus) -> str:
    complete = "is complete" if status.snapshots_published else "is not complete"
    ended = f" The directory {complete}." if status.state.final else ""
    return f"Files that were written are kept, none is half-written.{ended}"


def _healed(status: JobStatus) -> str:
    return f"Healed objects stay healed, none is half-written. {_looked_at(status)}"


def _verified(status: JobStatus) -> str:
    return f"Nothing was written. {_looked_at(status)}"


def _looked_at(status: JobStatus) -> str:
    """Return how much of the store is known, "" for nothing."""
    seen = status.present + status.copied + status.failed
    if not seen:
        return ""
    wrong = f", {counted(status.failed, 'object', verb='is')} wrong or unreadable" if status.failed else ""
    return f"At least {counted(seen, 'object', of=status.objects_total, verb='was')} looked at{wrong}."


_TEXTS: Final[dict[Action, Callable[[JobStatus], str]]] = {
    Action.COPY: _copied,
    Action.PUSH: _pushed,
    Action.PULL: _pulled,
    Action.HEAL: _healed,
    Action.VERIFY: _verified,
}
