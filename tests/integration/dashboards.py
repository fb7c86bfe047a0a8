"""The dashboard in a process of its own, and what it answers."""

from __future__ import annotations

import base64
import http.client
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

from .processes import PATIENCE_S, Started, program, started, until


@dataclass
class Answer:
    """What was answered: status, headers with their names in lower case, body."""

    status: int
    headers: dict[str, str]
    body: str
    text: str = field(init=False)

    def __post_init__(self) -> None:
        """Keep the words alone as well, in one line."""
        self.text = " ".join(unescape(re.sub(r"<[^>]*>", " ", self.body)).split())


@dataclass
class Dashboard:
    """A dashboard that runs."""

    url: str
    process: Started

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Return what is answered, whatever its status."""
        parts = urlsplit(self.url)
        assert parts.hostname
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            found = connection.getresponse()
            named = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, named, found.read().decode())
        finally:
            connection.close()

    def page(self, path: str) -> Answer:
        """Return a page that is there."""
        found = self.ask(path)
        assert found.status == 200, (found.status, found.text, self.process.logged())
        return found


@contextmanager
def dashboard(
    folder: Path,
    broker: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    reach: str = "",
    before: str = "",
) -> Iterator[Dashboard]:
    """
    Run a dashboard, ready when this is entered; *reach* is the host to ask at, if not its address.

    *before* is Python that its process runs first.
    """
    log = folder / f"dashboard-{uuid.uuid4().hex[:6]}.log"
    temporary = folder / f"tmp-{uuid.uuid4().hex[:6]}"
    temporary.mkdir()
    command = [*program(before), "dashboard", "--port", "0", *arguments]
    own = {"SNAPFERRY_BROKER_URL": broker, "TMPDIR": str(temporary), **(env or {})}
    with started(*command, env=own, log=log) as running:

        def where() -> str:
            assert running.process.poll() is None, running.logged()
            found = re.search(r"dashboard at (http://\S+)/", running.logged())
            return found.group(1) if found else ""

        url = until(where, "the dashboard is up")
        if reach:
            url = f"http://{reach}:{urlsplit(url).port}"
        yield Dashboard(url, running)


def basic(login: str) -> dict[str, str]:
    """Return the header that gives user and password."""
    return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
