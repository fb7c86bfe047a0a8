"""The server of the dashboard: its sockets, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from socket import socket
from typing import Any, Final
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.settings.environment import Settings

from . import access
from .export.failures import FailureLists
from .handlers import THREADS, make_application
from .lookup import Lookup
from .preparation import prepare
from .throughput_history import ThroughputHistory
from .views.sources import Sources
from .worker_roster import WorkerRoster

# A page waits for Redis for at most twice as many seconds.
ANSWER_S: Final = 3.0

# Seconds that the first request is kept waiting for the preparation of the pages.
PREPARE_S: Final = 3.0

# Seconds after SIGTERM for requests that run.
END_S: Final = 2.0

_PAGE: Final = "snapferry-page"

# Requests carry no data but small forms.
MOST_BODY_BYTES: Final = 64 * 1024
MOST_HEADER_BYTES: Final = 16 * 1024


class InvalidOptions(Exception):
    """The dashboard cannot be served with these options; the message says why, in one line."""


def check_options(
    address: str,
    login: tuple[str, str] | None,
    flower: str | None,
    *,
    control: bool = False,
    hosts: tuple[str, ...] = (),
) -> None:
    """
    Raise `InvalidOptions` if *flower* is not an address, or if other machines could look without a login.

    With *control*, a host name of *hosts* means a proxy through which others come: they need a login as well.
    """
    beyond = [name for name in hosts if not access.is_loopback(name)]
    if control and login is None and beyond:
        raise InvalidOptions(
            f"--control with --host {beyond[0]} requires a login, because others can reach it through a proxy. Set"
            " SNAPFERRY_DASHBOARD_BASIC_AUTH to user:password."
        )
    if login is None and not access.is_loopback(address):
        raise InvalidOptions(
            f"--address {address or '(all addresses)'} requires a login, because other machines can reach it. Set"
            " SNAPFERRY_DASHBOARD_BASIC_AUTH to user:password, or use 127.0.0.1."
        )
    if flower is None:
        return
    parts = urlsplit("")
    try:
        parts = urlsplit(flower)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidOptions(
            "--flower must be an address such as http://127.0.0.1:5555, without user or query"
        )


def bind(address: str, port: int) -> list[socket]:
    """Return listening sockets. Raises `InvalidOptions` if the address or port cannot be used."""
    try:
        return bind_sockets(port, address)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidOptions(f"cannot listen on {address}, port {port}: {reason}") from error


def serve(
    settings: Settings,
    sockets: list[socket],
    *,
    address: str,
    login: tuple[str, str] | None,
    hosts: tuple[str, ...] = (),
    flower: str | None = None,
    control: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """
    Serve the dashboard of the fleet of *settings* at *sockets*, which were bound to *address*, until SIGTERM or Ctrl-C.

    With *control* the pages can change jobs. *ready* is called once the server answers. During an outage of the broker,
    the pages show an error. A thread that waits for a broker which does not answer keeps the dashboard from ending for
    `END_S` seconds; then the process ends without it.
    """
    jobs = Jobs(settings, check=False, answer_s=ANSWER_S)
    with (
        ThroughputHistory(jobs.open) as throughput,
        WorkerRoster(make_fleet_app(settings)) as roster,
        Lookup(settings) as lookup,
        _ending(ThreadPoolExecutor(THREADS, thread_name_prefix=_PAGE)) as pool,
        # Ended before the threads that wait for them.
        FailureLists(settings) as failure_lists,
    ):
        sources = Sources(jobs, throughput, roster, lookup, (flower or "").rstrip("/"))
        application = make_application(
            sources,
            hosts=access.allowed_hosts(address, hosts),
            login=login,
            pool=pool,
            failure_lists=failure_lists,
            control=control,
            named_hosts=hosts,
        )
        server = HTTPServer(
            application,
            max_body_size=MOST_BODY_BYTES,
            max_header_size=MOST_HEADER_BYTES,
            idle_connection_timeout=60,
            body_timeout=10,
        )
        asyncio.run(_run(server, sockets, ready, pool.submit(prepare, sources)))
    _end_without_threads()


@contextmanager
def _ending(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Yield *pool*; at the end drop what waits in it, and wait `END_S` seconds for what runs."""
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + END_S
        for thread in _page_threads():
            thread.join(max(0.0, until - time.monotonic()))


def _end_without_threads() -> None:
    """End the process if threads of requests still run: Python would wait for them, and only reads are lost."""
    if _page_threads():
        logging.shutdown()
        os._exit(0)


def _page_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(f"{_PAGE}_")]


async def _run(
    server: HTTPServer, sockets: list[socket], ready: Callable[[], None], prepared: Future[None]
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    ending = asyncio.ensure_future(ended.wait())
    preparing = asyncio.wrap_future(prepared)
    # During an outage of the broker the pages say so soon.
    awaited: set[asyncio.Future[Any]] = {ending, preparing}
    await asyncio.wait(awaited, timeout=PREPARE_S, return_when=asyncio.FIRST_COMPLETED)
    # Its thread may end after this loop, and must not tell it.
    preparing.cancel()
    if not ended.is_set():
        server.add_sockets(sockets)
        ready()
    await ending
    server.stop()
    await server.close_all_connections()
