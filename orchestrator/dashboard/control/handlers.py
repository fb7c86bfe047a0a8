"""Requests to acts to answers. GET shows forms and changes nothing; POST acts, and then leads to the page of a job."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar, Final
from urllib.parse import quote

from pydantic import ValidationError

from snapferry.orchestrator.dashboard.guarded import JOB, Guarded, Page, Problem, title_of
from snapferry.orchestrator.dashboard.pages import sentence
from snapferry.orchestrator.dashboard.views.control import change_page, dismiss_page
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.jobs import JobRefused
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob

from . import audit
from .acts import Acts, Done, Form, WrongInput
from .origin import came_through_proxy, foreign

ACTS: Final = ("pause", "continue", "cancel", "retry", "resume", "priority", "limit", "dismiss", "undismiss")

ACCEPTED: Final = "accepted"


class Refused(Problem):
    """An act that was not done, for a *reason* of one line."""

    def __init__(self, status: HTTPStatus, reason: str, job_id: str = "") -> None:
        super().__init__(status, "Nothing was changed", sentence(reason), back=_page_of(job_id))
        self.audited = reason


class ControlOff(Guarded):
    """The addresses of acts, in a dashboard without ``--control``: there is nothing there."""

    methods: ClassVar = Guarded.SUPPORTED_METHODS

    async def prepare(self) -> None:
        """Refuse every method, after the same checks as everywhere."""
        await super().prepare()
        raise Problem(HTTPStatus.NOT_FOUND, "Page not found", "This dashboard was started without --control.")


class Act(Guarded):
    """An act with a job, sent by a form."""

    methods: ClassVar = ("POST",)

    async def prepare(self) -> None:
        """Refuse requests that no page of this dashboard sent, after the checks of host name and login."""
        await super().prepare()
        reason = foreign(self.request.headers, self.settings["named_hosts"])
        if self.settings["login"] is None and came_through_proxy(self.request.headers):
            reason = "it came through a proxy, and this dashboard has no password"
        if not reason and not self.has_form_token():
            reason = "its form is out of date, or of another site. Open the page of the job again"
        if reason:
            self._refuse(HTTPStatus.FORBIDDEN, reason)

    async def post(self, job_id: str, act: str) -> None:
        """Do the act, and lead to the page of the job, or of the job that continues it."""
        acts: Acts = self.settings["acts"]
        form: Form = {name: self.get_body_argument(name) for name in self.request.body_arguments}
        loop = asyncio.get_running_loop()
        try:
            run = partial(acts.run, act, job_id, form, user=self._user())
            done = await loop.run_in_executor(self.settings["pool"], run)
        except WrongInput as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except UnknownJob:
            self._refuse(HTTPStatus.NOT_FOUND, f"job {job_id} is not known, or its record has expired")
        except JobRefused as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except ValidationError:
            self._refuse(
                HTTPStatus.CONFLICT, "another version of snapferry submitted the job. Use that version"
            )
        except BrokerUnavailable as error:
            self._audit(f"not known: {error}")
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                title_of(error),
                f"{sentence(str(error))} Look at the job whether the change was made.",
                back=_page_of(job_id),
            ) from error
        except Exception:
            self._audit("not known: uncaught exception, see the log")
            raise
        else:
            self._audit(ACCEPTED, done)
            self.redirect(f"{_page_of(done.new_job or job_id)}?did={act}", status=HTTPStatus.SEE_OTHER)

    def _user(self) -> str:
        login: tuple[str, str] | None = self.settings["login"]
        return login[0] if login else ""

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._audit(f"refused: {reason}")
        raise Refused(status, reason, self.path_args[0])

    def _audit(self, result: str, done: Done | None = None) -> None:
        job_id, act = self.path_args
        done = done or Done()
        audit.record(
            self.request,
            user=self._user(),
            act=act,
            job=job_id,
            detail=done.detail,
            result=result,
            new_job=done.new_job,
        )


class FormPage(Page):
    """A page with forms that change an open job."""

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return change_page(sources, path[0])


class Change(FormPage):
    """The forms for priority and limits."""

    template = "control/change.html"


class ConfirmCancel(FormPage):
    """Asks whether a job is to be cancelled."""

    template = "control/cancel.html"


class Dismiss(Page):
    """Asks why a failed job is to be dismissed."""

    template = "control/dismiss.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return dismiss_page(sources, path[0])


def routes(*, control: bool) -> list[tuple[str, type[Guarded]]]:
    """Return the addresses of forms and acts, which do not exist without *control*."""
    if not control:
        return [(rf"/jobs/{JOB}/(?:change|confirm-cancel|confirm-dismiss|{'|'.join(ACTS)})", ControlOff)]
    return [
        (rf"/jobs/{JOB}/change", Change),
        (rf"/jobs/{JOB}/confirm-cancel", ConfirmCancel),
        (rf"/jobs/{JOB}/confirm-dismiss", Dismiss),
        (rf"/jobs/{JOB}/({'|'.join(ACTS)})", Act),
    ]


def _page_of(job_id: str) -> str:
    return f"/jobs/{quote(job_id)}" if job_id else "/"
