"""What the forms that change a job show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from snapferry.orchestrator.reporting.advice import advise
from snapferry.workers.ledger import JobStatus
from snapferry.workers.queues import Priority

from .sources import Sources

# What the page of a job says after a form led to it.
DID: Final = {
    "pause": "Request sent: pause. The job stops within 30 seconds.",
    "continue": "Request sent: continue.",
    "cancel": "Request sent: cancel. Running batches stop within 30 seconds.",
    "retry": "Request sent: retry. This is the new job.",
    "resume": "Request sent: resume. This is the new job.",
    "priority": "Request sent: change the priority.",
    "limit": "Request sent: change the limits.",
}

_TEXTS: Final = {
    "pause": "Pause",
    "continue": "Continue",
    "retry": "Retry failed objects",
    "resume": "Resume",
}


@dataclass(frozen=True)
class Controls:
    """
    What can be done with a job.

    *acts* are pairs of act and text, each a form of one button. *changeable*: limits, priority and cancel as well.
    *said* confirms the last request.
    """

    acts: tuple[tuple[str, str], ...]
    changeable: bool
    said: str = ""


def controls(status: JobStatus, *, did: str = "") -> Controls:
    """Return what can be done with a job, after the act *did*: for an ended job, what `advise` returns."""
    said = DID.get(did, "")
    if not status.state.final:
        if status.cancelling:
            return Controls((), changeable=False, said=said)
        act = "continue" if status.paused else "pause"
        return Controls(((act, _TEXTS[act]),), changeable=True, said=said)
    argv = advise(status).argv
    act = argv[1] if len(argv) > 1 and argv[1] in ("retry", "resume") else ""
    return Controls(((act, _TEXTS[act]),) if act else (), changeable=False, said=said)


def change_page(sources: Sources, job_id: str) -> dict[str, Any]:
    """Return the values of the pages with forms about a job. Raises `UnknownJob`."""
    status = sources.jobs.status(job_id)
    limits = {name: "" if value is None else str(value) for name, value in status.limits}
    return {
        "status": status,
        "limits": limits,
        "priorities": [level.value for level in Priority],
        "open": not status.state.final and not status.cancelling,
        # What is being typed must not be replaced.
        "refresh_s": 0,
    }
