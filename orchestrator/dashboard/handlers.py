"""Requests to views to pages. Only GET and HEAD are answered, after host name and login are checked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Final

from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from snapferry.orchestrator.jobs import JobRefused
from snapferry.stores.text.printable import printable
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob

from . import access
from .pages import clip, render
from .views.job import job_page
from .views.jobs import jobs_page
from .views.schedules import schedules_page
from .views.sources import Sources
from .views.workers import workers_page

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"

METHODS: Final = ("GET", "HEAD")

# Pages that are made at once; others wait.
THREADS: Final = 8

# Seconds until the page about an outage of Redis tries again.
RETRY_S: Final = 5

_JOB: Final = r"([A-Za-z0-9-]{1,64})"


def make_application(
    sources: Sources,
    *,
    hosts: frozenset[str] | None,
    login: tuple[str, str] | None,
    pool: ThreadPoolExecutor,
) -> Application:
    """
    Return the dashboard as a web application. *hosts* are the host names that requests may use; None: any.

    Without a *login*, anyone who can reach the server can see the pages.
    """
    return Application(
        [
            (r"/healthz", Health),
            (r"/", JobsPage),
            (rf"/jobs/{_JOB}", JobPage),
            (r"/workers", WorkersPage),
            (r"/schedules", SchedulesPage),
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
    )


class Guarded(RequestHandler):
    """The base of every handler: headers, host name and login."""

    needs_login: ClassVar[bool] = True

    def set_default_headers(self) -> None:
        """Set the headers of every answer, including errors."""
        self.clear_header("Server")
        for name, value in access.HEADERS.items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        """Refuse other methods, host names that are not allowed, and requests without the login."""
        if self.request.method not in METHODS:
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        hosts = self.settings["hosts"]
        if hosts is not None and access.host_of(self.request.headers.get("Host", "")) not in hosts:
            raise HTTPError(HTTPStatus.MISDIRECTED_REQUEST)
        login = self.settings["login"]
        if self.needs_login and login is not None:
            await self._check_login(login)

    async def _check_login(self, login: tuple[str, str]) -> None:
        given = self.request.headers.get("Authorization", "")
        address = self.request.remote_ip or ""
        wrong_passwords: access.WrongPasswords = self.settings["wrong_passwords"]
        # The first request of a browser has no password; it is not a guess.
        if given and wrong_passwords.too_many(address):
            raise HTTPError(HTTPStatus.TOO_MANY_REQUESTS)
        if access.knows_password(given, login):
            return
        if given:
            log.warning("wrong password from %s", address)
            await wrong_passwords.wait(address)
        raise HTTPError(HTTPStatus.UNAUTHORIZED)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a page about the error."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(METHODS))
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="snapferry", charset="UTF-8"')
        if status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            self.set_header("Retry-After", str(RETRY_S))
        title, advice = _problem(status_code, raised)
        refresh_s = RETRY_S if status_code == HTTPStatus.SERVICE_UNAVAILABLE else 0
        self.finish(
            render(
                "problem.html",
                static=self.static_url,
                refresh_s=refresh_s,
                title=title,
                advice=advice,
                at=None,
            )
        )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log unexpected errors with their traceback, and nothing else."""
        if not isinstance(value, HTTPError | _BrokerDown):
            log.error("uncaught exception", exc_info=(typ, value, tb))

    def compute_etag(self) -> str | None:
        """Return None: a page shows when it was made, so no two are the same."""
        return None


class _BrokerDown(HTTPError):
    """The broker does not answer, for a *reason* that may be shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE)
        self.broker_error = reason


class Page(Guarded):
    """A page of one view, which runs in a thread."""

    template: ClassVar[str]

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        """Return the values that the template shows."""
        raise NotImplementedError

    async def get(self, *path: str) -> None:
        """Answer with the page."""
        self.finish(await self.in_thread(self._page, *path))

    async def in_thread(self, call: Callable[..., str], *arguments: str) -> str:
        """Return the result of *call*, run in a thread; an outage and an unknown job become answers."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.settings["pool"], call, *arguments)
        except BrokerUnavailable as error:
            raise _BrokerDown(str(error)) from error
        except (UnknownJob, JobRefused) as error:
            raise HTTPError(HTTPStatus.NOT_FOUND) from error

    async def head(self, *path: str) -> None:
        """Answer as for GET; Tornado omits the body."""
        await self.get(*path)

    def number(self, name: str) -> int:
        """Return the page number in parameter *name*, 1 if it has none."""
        text = self.get_query_argument(name, "1")
        return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1

    def _page(self, *path: str) -> str:
        values = self.values(self.settings["sources"], *path)
        return render(self.template, static=self.static_url, at=time.time(), **values)


class JobsPage(Page):
    """The list of jobs."""

    template = "jobs.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return jobs_page(sources, state=self.get_query_argument("state", ""), page=self.number("page"))


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
        return job_page(
            sources,
            path[0],
            state=self.get_query_argument("state", ""),
            snapshots=self.number("snapshots"),
            failures=self.number("failures"),
        )


class WorkersPage(Page):
    """The list of workers."""

    template = "workers.html"

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        return workers_page(sources)


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


def _problem(status_code: int, raised: object) -> tuple[str, str]:
    """Return the title and the advice of the page about an error."""
    if isinstance(raised, _BrokerDown):
        return (
            "Redis does not answer",
            f"{raised.broker_error}. Jobs continue when it is back; this page retries by itself.",
        )
    known = {
        HTTPStatus.UNAUTHORIZED: ("A login is required", "Reload the page, and enter user and password."),
        HTTPStatus.TOO_MANY_REQUESTS: (
            "Too many wrong passwords from this address",
            "Reload the page in a few seconds.",
        ),
        HTTPStatus.NOT_FOUND: (
            "Page not found",
            "If this was a job: its id may be misspelt, or its record may have expired.",
        ),
        HTTPStatus.METHOD_NOT_ALLOWED: (
            "The dashboard is read-only",
            "To change something, use the snapferry command.",
        ),
        HTTPStatus.MISDIRECTED_REQUEST: (
            "This host name is not allowed",
            "Use 127.0.0.1 or localhost, or start the dashboard with --host NAME.",
        ),
    }
    try:
        code = HTTPStatus(status_code)
    except ValueError:
        code = HTTPStatus.INTERNAL_SERVER_ERROR
    return known.get(code, (code.phrase, "See the log of the dashboard." if code >= 500 else ""))


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
