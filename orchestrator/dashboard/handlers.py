"""Requests to views to pages. Only GET and HEAD are answered, after host name and login are checked."""

from __future__ import annotations

import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from snapferry.stores.text.printable import printable

from . import access
from .control.acts import Acts
from .control.handlers import routes
from .export.failures import FailureLists
from .export.handlers import ROUTES as EXPORTS
from .form_tokens import SETTINGS
from .guarded import JOB, Guarded, Page
from .pages import clip
from .views.control import controls
from .views.job import job_page
from .views.jobs import PARAMETERS, jobs_page
from .views.schedules import schedules_page
from .views.sources import Sources
from .views.traffic import traffic_page
from .views.workers import workers_page

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"

# Pages that are made at once; others wait.
THREADS: Final = 8


def make_application(
    sources: Sources,
    *,
    hosts: frozenset[str] | None,
    login: tuple[str, str] | None,
    pool: ThreadPoolExecutor,
    failure_lists: FailureLists,
    control: bool = False,
    named_hosts: Collection[str] = (),
) -> Application:
    """
    Return the dashboard as a web application. *hosts* are the host names that requests may use; None: any.

    Without a *login*, anyone who can reach the server can see the pages. With *control* the pages can change jobs, and
    *named_hosts* are the host names that the operator gave.
    """
    return Application(
        [
            (r"/healthz", Health),
            (r"/", JobsPage),
            (rf"/jobs/{JOB}", JobPage),
            (r"/workers", WorkersPage),
            (r"/throughput", ThroughputPage),
            (r"/schedules", SchedulesPage),
            *EXPORTS,
            *routes(control=control),
            (r"/favicon.ico", NotFound),
        ],
        default_handler_class=NotFound,
        static_path=str(STATIC),
        static_handler_class=Static,
        compress_response=True,
        log_function=_log,
        sources=sources,
        hosts=hosts,
        login=login,
        wrong_passwords=access.WrongPasswords(),
        pool=pool,
        control=control,
        acts=Acts(sources.jobs),
        failure_lists=failure_lists,
        named_hosts=frozenset(name.lower() for name in named_hosts),
        **SETTINGS,
    )


class JobsPage(Page):
    """The list of jobs."""

    template = "jobs.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        given = {name: self.get_query_argument(name, "") for name in PARAMETERS}
        return jobs_page(sources, given, page=self.number("page"))


class JobPage(Page):
    """One job. The first digits of an id redirect to the job, if only one job has them."""

    template = "job.html"

    async def get(self, *path: str) -> None:
        """Answer with the page, or a redirect to it."""
        whole = await self.in_thread(self.settings["sources"].jobs.find, path[0])
        if whole != path[0]:
            self.redirect(f"/jobs/{whole}")
            return
        await super().get(*path)

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        found = job_page(
            sources,
            path[0],
            state=self.get_query_argument("state", ""),
            snapshots=self.number("snapshots"),
            failures=self.number("failures"),
        )
        if self.settings["control"]:
            found["controls"] = controls(found["status"], did=self.get_query_argument("did", ""))
        return found


class WorkersPage(Page):
    """The list of workers."""

    template = "workers.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return workers_page(sources)


class ThroughputPage(Page):
    """The throughput of the fleet, of stores and of workers."""

    template = "throughput.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return traffic_page(sources, period=self.get_query_argument("period", ""))


class SchedulesPage(Page):
    """The list of mirrors and scrubs."""

    template = "schedules.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return schedules_page(sources)


class Health(Guarded):
    """Answers "ok" to anybody while the server runs, even during an outage of Redis."""

    needs_login = False

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("ok\n")

    head = get


class NotFound(Guarded):
    """Any other address."""

    def get(self, *path: str) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)

    head = get


class Static(Guarded, StaticFileHandler):
    """Files of the dashboard. Their addresses contain a version, so a browser may cache them."""

    def compute_etag(self) -> str | None:
        return StaticFileHandler.compute_etag(self)

    def set_extra_headers(self, path: str) -> None:
        """Allow caching only of addresses with a version."""
        if "v" not in self.request.arguments:
            self.set_header("Cache-Control", "no-cache")


def _log(handler: RequestHandler) -> None:
    request = handler.request
    level = logging.ERROR if handler.get_status() == HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    log.log(
        level,
        "%s %s %s %s %.0f ms",
        request.remote_ip,
        request.method,
        printable(clip(request.uri or "", 200)),
        handler.get_status(),
        1000 * request.request_time(),
    )
