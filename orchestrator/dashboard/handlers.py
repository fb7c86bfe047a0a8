"""Requests to views to pages. Nothing but GET and HEAD is answered, and only to who may look."""

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

from . import access, views
from .pages import clip, render

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"

METHODS: Final = ("GET", "HEAD")

# Pages that are made at once; the others wait.
THREADS: Final = 8

# A page that says that Redis is away looks again after so many seconds.
AGAIN_S: Final = 5

_JOB: Final = r"([A-Za-z0-9-]{1,64})"


def make_application(
    fleet: views.Fleet,
    *,
    hosts: frozenset[str] | None,
    login: tuple[str, str] | None,
    pool: ThreadPoolExecutor,
) -> Application:
    """
    Return the dashboard as a web application. *hosts* are the names that it may be asked for under, None: any.

    Without a *login* everybody who reaches it may look.
    """
    return Application(
        [
            (r"/healthz", Health),
            (r"/", JobsPage),
            (rf"/jobs/{_JOB}", JobPage),
            (r"/workers", WorkersPage),
            (r"/favicon.ico", Nothing),
        ],
        default_handler_class=Nothing,
        static_path=str(STATIC),
        static_handler_class=Static,
        compress_response=True,
        log_function=_log,
        fleet=fleet,
        hosts=hosts,
        login=login,
        wrong_passwords=access.WrongPasswords(),
        pool=pool,
    )


class Guarded(RequestHandler):
    """What holds for every answer: its headers, and who may have it."""

    needs_login: ClassVar[bool] = True

    def set_default_headers(self) -> None:
        """Set the headers of every answer, errors as well."""
        self.clear_header("Server")
        for name, value in access.HEADERS.items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        """Refuse what is not to be answered."""
        if self.request.method not in METHODS:
            raise HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        hosts = self.settings["hosts"]
        if hosts is not None and access.host_of(self.request.headers.get("Host", "")) not in hosts:
            raise HTTPError(HTTPStatus.MISDIRECTED_REQUEST)
        login = self.settings["login"]
        if self.needs_login and login is not None:
            await self._ask_for(login)

    async def _ask_for(self, login: tuple[str, str]) -> None:
        given = self.request.headers.get("Authorization", "")
        address = self.request.remote_ip or ""
        wrong_passwords: access.WrongPasswords = self.settings["wrong_passwords"]
        # A browser's first request has no password, and is no guess.
        if given and wrong_passwords.too_many(address):
            raise HTTPError(HTTPStatus.TOO_MANY_REQUESTS)
        if access.knows_password(given, login):
            return
        if given:
            log.warning("wrong password from %s", address)
            await wrong_passwords.wait(address)
        raise HTTPError(HTTPStatus.UNAUTHORIZED)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a page about what is wrong."""
        raised = kwargs.get("exc_info", (None, None, None))[1]
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(METHODS))
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="snapferry", charset="UTF-8"')
        if status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            self.set_header("Retry-After", str(AGAIN_S))
        words, more = _problem(status_code, raised)
        again = AGAIN_S if status_code == HTTPStatus.SERVICE_UNAVAILABLE else 0
        self.finish(
            render("problem.html", static=self.static_url, refresh_s=again, words=words, more=more, at=None)
        )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is a fault of the program with its traceback, and nothing else."""
        if not isinstance(value, HTTPError | _Away):
            log.error("a page could not be made", exc_info=(typ, value, tb))

    def compute_etag(self) -> str | None:
        """Return None: a page says when it was made, so no two are alike."""
        return None


class _Away(HTTPError):
    """The broker does not answer; the message of its cause may be shown."""

    def __init__(self, words: str) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE)
        self.words = words


class Page(Guarded):
    """A page made of one view, beside the server's loop."""

    template: ClassVar[str]

    def values(self, fleet: views.Fleet, *path: str) -> dict[str, Any]:
        """Return what the page shows."""
        raise NotImplementedError

    async def get(self, *path: str) -> None:
        """Answer with the page."""
        self.finish(await self.beside(self._page, *path))

    async def beside(self, call: Callable[..., str], *arguments: str) -> str:
        """Return what *call* returns, made beside the loop; what it cannot find becomes an answer."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.settings["pool"], call, *arguments)
        except BrokerUnavailable as error:
            raise _Away(str(error)) from error
        except (UnknownJob, JobRefused) as error:
            raise HTTPError(HTTPStatus.NOT_FOUND) from error

    async def head(self, *path: str) -> None:
        """Answer as to GET; Tornado leaves the body out."""
        await self.get(*path)

    def number(self, name: str) -> int:
        """Return a page's number of the query, 1 if it is none."""
        text = self.get_query_argument(name, "1")
        return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else 1

    def _page(self, *path: str) -> str:
        values = self.values(self.settings["fleet"], *path)
        return render(self.template, static=self.static_url, at=time.time(), **values)


class JobsPage(Page):
    """The list of jobs."""

    template = "jobs.html"

    def values(self, fleet: views.Fleet, *path: str) -> dict[str, Any]:
        return views.jobs_page(fleet, state=self.get_query_argument("state", ""), page=self.number("page"))


class JobPage(Page):
    """One job. The beginning of an id leads to the job, if there is just one."""

    template = "job.html"

    async def get(self, *path: str) -> None:
        """Answer with the page, or with where it is."""
        whole = await self.beside(self.settings["fleet"].jobs.find, path[0])
        if whole != path[0]:
            self.redirect(f"/jobs/{whole}")
            return
        await super().get(*path)

    def values(self, fleet: views.Fleet, *path: str) -> dict[str, Any]:
        return views.job_page(
            fleet,
            path[0],
            state=self.get_query_argument("state", ""),
            snapshots=self.number("snapshots"),
            failures=self.number("failures"),
        )


class WorkersPage(Page):
    """The list of workers."""

    template = "workers.html"

    def values(self, fleet: views.Fleet, *path: str) -> dict[str, Any]:
        return views.workers_page(fleet)


class Health(Guarded):
    """Says that the dashboard itself is well, to anybody: whether Redis is, is for Redis to say."""

    needs_login = False

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("ok\n")

    head = get


class Nothing(Guarded):
    """There is no such page."""

    def get(self, *path: str) -> None:
        raise HTTPError(HTTPStatus.NOT_FOUND)

    head = get


class Static(Guarded, StaticFileHandler):
    """Files of the dashboard itself. Their addresses change when they do, so a browser may keep them."""

    def compute_etag(self) -> str | None:
        return StaticFileHandler.compute_etag(self)

    def set_extra_headers(self, path: str) -> None:
        """Let what is asked for with its version be kept, and nothing else."""
        if "v" not in self.request.arguments:
            self.set_header("Cache-Control", "no-cache")


def _problem(status_code: int, raised: object) -> tuple[str, str]:
    """Return what is wrong, and what can be done about it."""
    if isinstance(raised, _Away):
        return (
            "Redis does not answer",
            f"{raised.words}. The jobs go on or wait; this page looks again by itself.",
        )
    known = {
        HTTPStatus.UNAUTHORIZED: ("A password is needed", "Reload the page, and give user and password."),
        HTTPStatus.TOO_MANY_REQUESTS: (
            "Too many wrong passwords came from this address",
            "Reload the page in a few seconds.",
        ),
        HTTPStatus.NOT_FOUND: (
            "There is no such page",
            "If it was a job's: its id may be misspelt, or its record dropped, some time after the job's end.",
        ),
        HTTPStatus.METHOD_NOT_ALLOWED: (
            "This dashboard only shows",
            "To change something, use the command snapferry.",
        ),
        HTTPStatus.MISDIRECTED_REQUEST: (
            "This host name is not allowed",
            "Ask for 127.0.0.1 or localhost, or start the dashboard with --host NAME.",
        ),
    }
    try:
        code = HTTPStatus(status_code)
    except ValueError:
        code = HTTPStatus.INTERNAL_SERVER_ERROR
    return known.get(code, (code.phrase, "The dashboard's log says more." if code >= 500 else ""))


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
