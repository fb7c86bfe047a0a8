"""What every handler shares: headers, host name, login, the pages of errors, and views that run in threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final

from tornado.web import HTTPError

from snapferry.orchestrator.jobs import BrokerDamaged, JobRefused
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob

from . import access, zones
from .form_tokens import FormTokens
from .pages import render, sentence
from .views.sources import Sources

log = logging.getLogger(__name__)

METHODS: Final = ("GET", "HEAD")

# Seconds until the page about an outage of Redis tries again.
RETRY_S: Final = 5

# The id of a job, or its first digits, in an address.
JOB: Final = r"([A-Za-z0-9-]{1,64})"


class Problem(HTTPError):
    """An error whose page has a *title* and *advice*, and a link to the address *back* instead of the list of jobs."""

    def __init__(self, status_code: int, title: str, advice: str, *, back: str = "") -> None:
        super().__init__(status_code)
        self.title, self.advice, self.back = title, advice, back


class Guarded(FormTokens):
    """The base of every handler: headers, host name and login. It answers *methods*."""

    needs_login: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = METHODS

    def set_default_headers(self) -> None:
        """Set the headers of every answer, including errors."""
        self.clear_header("Server")
        for name, value in access.headers(forms=self.settings["control"]).items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        """Refuse other methods, host names that are not allowed, and requests without the login."""
        if self.request.method not in self.methods:
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
            self.set_header("Allow", ", ".join(self.methods))
        if status_code == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", 'Basic realm="snapferry", charset="UTF-8"')
        if status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            self.set_header("Retry-After", str(RETRY_S))
        problem = raised if isinstance(raised, Problem) else Problem(status_code, *_known(status_code))
        # A page that a form led to must not be loaded again: there is nothing under its address.
        retries = status_code == HTTPStatus.SERVICE_UNAVAILABLE and self.request.method in METHODS
        self.finish(
            render(
                "problem.html",
                static=self.static_url,
                refresh_s=RETRY_S if retries else 0,
                title=problem.title,
                advice=problem.advice,
                back=problem.back,
                control=self.settings["control"],
                at=None,
            )
        )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log unexpected errors with their traceback, and nothing else."""
        if not isinstance(value, HTTPError):
            log.error("uncaught exception", exc_info=(typ, value, tb))

    def compute_etag(self) -> str | None:
        """Return None: a page shows when it was made, so no two are the same."""
        return None


class Page(Guarded):
    """A page of one view, which runs in a thread."""

    template: ClassVar[str]
    zone = zones.DEFAULT

    def values(self, sources: Sources, *path: str) -> dict[str, Any]:
        """Return the values that the template shows."""
        raise NotImplementedError

    # The token of the page's forms, "" for a page without any.
    token = ""  # nosec B105

    async def get(self, *path: str) -> None:
        """Answer with the page. A time zone in the address is kept in a cookie."""
        chosen = self.get_query_argument(zones.PARAMETER, "")
        if zones.is_zone(chosen):
            self.zone = chosen
            self.set_cookie(zones.PARAMETER, chosen, expires_days=400, samesite="Lax", httponly=True)
        elif zones.is_zone(kept := self.get_cookie(zones.PARAMETER, "")):
            self.zone = kept
        if self.settings["control"]:
            # Not in the thread: it sets a cookie.
            self.token = self.form_token()
        self.finish(await self.in_thread(self._page, *path))

    async def in_thread(self, call: Callable[..., str], *arguments: str) -> str:
        """Return the result of *call*, run in a thread; an outage and an unknown job become answers."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.settings["pool"], call, *arguments)
        except BrokerUnavailable as error:
            advice = (
                ""
                if isinstance(error, BrokerDamaged)
                else " Start Redis. Workers and orchestrators wait for it, and jobs continue when it is back."
            )
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                title_of(error),
                f"{sentence(str(error))}{advice} This page retries by itself.",
            ) from error
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
        return render(
            self.template,
            static=self.static_url,
            at=time.time(),
            control=self.settings["control"],
            token=self.token,
            zone=self.zone,
            zones=zones.choices(self.zone),
            # What a form of the page keeps of its address.
            parameters=[
                (name, value)
                for name in self.request.query_arguments
                if name != zones.PARAMETER and (value := self.get_query_argument(name, ""))
            ],
            **values,
        )


def title_of(error: BrokerUnavailable) -> str:
    """Return the title of the page about an *error* of the broker."""
    return "A key in Redis is damaged" if isinstance(error, BrokerDamaged) else "Redis does not answer"


def _known(status_code: int) -> tuple[str, str]:
    """Return the title and the advice of the page about an error."""
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
