"""What the forms that change a job show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.reporting.text.limits import limit_text
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.stores.text.format import counted
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import LONGEST_NOTE, JobStatus, State
from snapferry.workers.queues import Priority

from .sources import Sources

_TEXTS: Final = {
    "pause": "Pause",
    "continue": "Continue",
    "retry": "Retry failed objects",
    "resume": "Resume",
    "undismiss": "Count as failed again",
}


@dataclass(frozen=True)
class Controls:
    """
    What can be done with a job.

    *acts* are pairs of act and text, each a form of one button. *changeable*: limits, priority and cancel as well.
    *dismissible*: the job counts as failed. *said* confirms the last request.
    """

    acts: tuple[tuple[str, str], ...]
    changeable: bool
    said: str = ""
    dismissible: bool = False


def said_of(did: str, status: JobStatus) -> str:
    """Return what the act *did* has come to, by the status of the job that its form led to; "" for no such act."""
    if did in ("pause", "continue", "cancel"):
        return _stops(did, status)
    if did in ("retry", "resume"):
        before = f"job {short(status.continues)}" if status.continues else "the other job"
        does = "tries the failed objects" if did == "retry" else "does the rest"
        return f"This is the new job. It {does} of {before}."
    return {
        "priority": f"The priority is {status.priority} now.",
        "limit": f"Limits of the job now: {limit_text(status.limits) or 'none'}.",
        "dismiss": "The job does not count as failed any more."
        if status.dismissed
        else "The job counts as failed again.",
        "undismiss": "The job counts as failed again."
        if status.unresolved
        else "The job does not count as failed.",
    }.get(did, "")


def _stops(did: str, status: JobStatus) -> str:
    if status.state is State.CANCELLED:
        return "The job is cancelled. Objects that were copied and snapshots that were published stay."
    if status.state.final:
        return f"The job has ended: it is {state_text(status)}."
    if status.cancelling:
        return "The job is being cancelled. Running batches stop within 30 seconds."
    if status.paused:
        running = (
            f" {counted(len(status.running), 'batch', 'batches')} still running." if status.running else ""
        )
        return f"The job is paused. Objects in flight have 15 seconds to finish.{running}"
    return "The job continues." if did == "continue" else f"The job is {state_text(status)}."


def controls(status: JobStatus, *, did: str = "") -> Controls:
    """Return what can be done with a job, after the act *did*: for an ended job, what `advise` returns."""
    said = said_of(did, status)
    if not status.state.final:
        if status.cancelling:
            return Controls((), changeable=False, said=said)
        act = "continue" if status.paused else "pause"
        return Controls(((act, _TEXTS[act]),), changeable=True, said=said)
    argv = advise(status).argv
    act = argv[1] if len(argv) > 1 and argv[1] in ("retry", "resume") else ""
    if status.dismissed is not None and not status.superseded:
        act = "undismiss"
    acts = ((act, _TEXTS[act]),) if act else ()
    return Controls(acts, changeable=False, said=said, dismissible=status.unresolved)


def change_page(sources: Sources, job_id: str) -> dict[str, Any]:
    """
    Return the values of the pages that change an open job. Raises `UnknownJob`.

    ``applies`` is False if the job cannot be changed any more; its forms are not shown then.
    """
    status = sources.jobs.status(job_id)
    limits = {name: "" if value is None else str(value) for name, value in status.limits}
    return _form_page(status, applies=not status.state.final and not status.cancelling) | {
        "limits": limits,
        "priorities": [level.value for level in Priority],
    }


def dismiss_page(sources: Sources, job_id: str) -> dict[str, Any]:
    """
    Return the values of the page that dismisses a failed job. Raises `UnknownJob`.

    ``applies`` is False if the job does not count as failed; its form is not shown then.
    """
    status = sources.jobs.status(job_id)
    return _form_page(status, applies=status.unresolved) | {"longest": LONGEST_NOTE}


def _form_page(status: JobStatus, *, applies: bool) -> dict[str, Any]:
    # What is being typed must not be replaced by a page that is loaded again.
    return {"status": status, "applies": applies, "refresh_s": 0}
