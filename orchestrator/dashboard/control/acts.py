"""What each form does with a job, by the methods of `Jobs` that the commands of the same names call."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from snapferry.orchestrator.jobs import JobRefused, Jobs
from snapferry.workers.ledger import LONGEST_NOTE, JobStatus, UnknownJob
from snapferry.workers.queues import Priority
from snapferry.workers.settings.quantities import LARGEST_NUMBER, MOST_IN_FLIGHT, MOST_REQUESTS, size_of

Form = Mapping[str, str]

# A second click within so many seconds leads to the job that the first click began.
SAME_CLICK_S: Final = 15.0

# The fields of the form with limits, and the largest values of those that are plain numbers.
LIMITS: Final = ("rate", "requests", "jobs")
_MOST: Final = {
    "requests": ("requests per second", MOST_REQUESTS),
    "jobs": ("objects in flight", MOST_IN_FLIGHT),
}

_is_number: Final = re.compile(r"[0-9]{1,12}").fullmatch


class WrongInput(Exception):
    """A field of a form cannot be used; the message names it, in one line."""


@dataclass(frozen=True)
class Done:
    """An act that was accepted: *detail* of what was asked for, and the id of the job that it began, if any."""

    detail: str = ""
    new_job: str = ""


class Acts:
    """
    The acts of a dashboard. All methods may be called from any thread.

    `run` raises `JobRefused`, `WrongInput`, and as the methods of `Jobs`.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._begun: dict[str, tuple[float, str]] = {}
        self._acts: Final[Mapping[str, Callable[[str, Form], Done]]] = {
            "pause": self._pause,
            "continue": self._continue,
            "cancel": self._cancel,
            "retry": self._retry,
            "resume": self._resume,
            "priority": self._priority,
            "limit": self._limit,
            "undismiss": self._undismiss,
        }

    def run(self, act: str, job_id: str, form: Form, *, user: str = "") -> Done:
        """Do the *act* of this name with a job, as its *form* says, for the *user* of the dashboard."""
        if act == "dismiss":
            return self._dismiss(job_id, form, user=user)
        return self._acts[act](job_id, form)

    def _pause(self, job_id: str, form: Form) -> Done:
        return _open(self._jobs.pause(job_id))

    def _continue(self, job_id: str, form: Form) -> Done:
        return _open(self._jobs.unpause(job_id))

    def _cancel(self, job_id: str, form: Form) -> Done:
        if form.get("confirmed") != "yes":
            raise WrongInput("cancel must be confirmed")
        _open(self._jobs.status(job_id))
        self._jobs.cancel(job_id)
        return Done()

    def _retry(self, job_id: str, form: Form) -> Done:
        return self._once(job_id, self._jobs.retry)

    def _resume(self, job_id: str, form: Form) -> Done:
        return self._once(job_id, self._jobs.resume)

    def _priority(self, job_id: str, form: Form) -> Done:
        level = form.get("priority", "")
        if level not in list(Priority):
            raise WrongInput("priority: must be high, normal or low")
        status, _ = self._jobs.prioritise(job_id, Priority(level))
        return _open(status, level)

    def _limit(self, job_id: str, form: Form) -> Done:
        changes = limits_of(form)
        if not changes:
            raise WrongInput("no limit is given")
        detail = ", ".join(f"{name} {'none' if value is None else value}" for name, value in changes.items())
        return _open(self._jobs.limit(job_id, changes), detail)

    def _dismiss(self, job_id: str, form: Form, *, user: str) -> Done:
        why = form.get("reason", "").strip()
        if len(why) > LONGEST_NOTE:
            raise WrongInput(f"reason: must have at most {LONGEST_NOTE} characters")
        self._jobs.dismiss(job_id, by=f"{user} on the dashboard" if user else "the dashboard", why=why)
        return Done(why)

    def _undismiss(self, job_id: str, form: Form) -> Done:
        self._jobs.undismiss(job_id)
        return Done()

    def _once(self, job_id: str, begin: Callable[[str], str | None]) -> Done:
        """Begin the job that continues another one, once for clicks that follow each other at once."""
        with self._lock:
            now = time.monotonic()
            self._begun = {old: found for old, found in self._begun.items() if now - found[0] < SAME_CLICK_S}
            if job_id in self._begun:
                return Done("again", self._begun[job_id][1])
            self._refuse_second(job_id)
            new = begin(job_id)
            if new is None:
                raise JobRefused(f"job {job_id} is done: nothing is left to do")
            self._begun[job_id] = (time.monotonic(), new)
            return Done("", new)

    def _refuse_second(self, job_id: str) -> None:
        """Raise `JobRefused` if a job that has not ended continues this one."""
        other = self._jobs.status(job_id).continued_by
        with suppress(UnknownJob):
            if other and not self._jobs.status(other).state.final:
                raise JobRefused(f"job {other} already continues this job")


def _open(status: JobStatus, detail: str = "") -> Done:
    """Return that an act was accepted. Raises `JobRefused` for a job that has ended."""
    if status.state.final:
        raise JobRefused(f"job {status.job_id} has already ended: it is {status.state}")
    return Done(detail)


def limits_of(form: Form) -> dict[str, int | None]:
    """
    Return the limits in a form by the names of the fields of `Limits`; an empty field removes a limit.

    Fields that the form does not have are left out. Raises `WrongInput`.
    """
    return {name: _limit_of(name, form[name].strip()) for name in LIMITS if name in form}


def _limit_of(name: str, text: str) -> int | None:
    if text in ("", "none"):
        return None
    if name == "rate":
        found = size_of(text.removesuffix("/s"))
        if found is None or not 1 <= found <= LARGEST_NUMBER:
            raise WrongInput(
                "bytes per second: must be a size such as 500k, 100M or 1.5Gi, or empty for no limit"
            )
        return found
    words, most = _MOST[name]
    if not _is_number(text) or not 1 <= int(text) <= most:
        raise WrongInput(f"{words}: must be an integer from 1 to {most:,}, or empty for no limit")
    return int(text)
