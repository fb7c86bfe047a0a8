"""A web application in this process, and what it answers."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tests.integration.dashboards import Answer

WAIT_S = 240.0


@dataclass
class Served:
    """An application that runs at *port* of this machine."""

    port: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return what is answered, whatever its status; redirects are not followed."""
        body = None if form is None else urlencode(form)
        kind = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, body=body, headers={**kind, **(headers or {})})
            found = connection.getresponse()
            named = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, named, found.read().decode())
        finally:
            connection.close()


@contextmanager
def serving(application: Application) -> Iterator[Served]:
    """Serve an application in a thread, for the block."""
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        sockets = bind_sockets(0, "127.0.0.1")
        server = HTTPServer(application, max_body_size=64 * 1024)
        server.add_sockets(sockets)
        ports.append(sockets[0].getsockname()[1])
        ready.set()
        await ended.wait()
        server.stop()
        await server.close_all_connections()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert ready.wait(WAIT_S)
        yield Served(ports[0])
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(WAIT_S)
        loop.close()
