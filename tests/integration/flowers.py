"""Flower beside a fleet, started as an operator does."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import free_port

from .processes import PATIENCE_S, Started, program, started, until

PASSWORD = "operator:a-pass-word"


@dataclass
class Flower:
    """Flower, running; what it answers is asked for as the operator, unless another *password* is given."""

    url: str
    running: Started

    def get(self, path: str, password: str = PASSWORD) -> Any:
        """Return what Flower answers, decoded if it is JSON. Raises `urllib.error.HTTPError`."""
        return self._ask(urllib.request.Request(self.url + path), password)

    def post(self, path: str, password: str = PASSWORD, **form: str) -> Any:
        """Do what a button of a page does."""
        data = urllib.parse.urlencode(form).encode()
        return self._ask(urllib.request.Request(self.url + path, data=data), password)

    @staticmethod
    def _ask(request: urllib.request.Request, password: str) -> Any:
        if password:
            request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text

    def tasks(self, **wanted: str) -> list[dict[str, Any]]:
        """Return the tasks that are remembered, those with the *wanted* fields; the oldest first."""
        found = self.get("/api/tasks?limit=1000").values()
        chosen = [task for task in found if wanted.items() <= task.items()]
        return sorted(chosen, key=lambda task: float(task["sent"] or task["received"] or 0))

    def worker(self, role: str) -> str:
        """Return the full name of the worker of that name, once Flower knows it."""

        def known() -> str:
            names = self.get("/api/workers?refresh=1")
            return next((name for name in names if name.startswith(f"{role}@")), "")

        found: str = until(known, f"Flower knows {role}")
        return found

    def answers(self) -> bool:
        try:
            return bool(self.get("/healthcheck", "") == "OK")
        except OSError:
            return False


@contextmanager
def flower(
    broker: str, folder: Path, *options: str, env: Mapping[str, str] | None = None, password: str = PASSWORD
) -> Iterator[Flower]:
    """Run ``snapferry flower`` on a free port, with its file in *folder*; ready when this is entered."""
    port = free_port()
    prefix = options[options.index("--url-prefix") + 1] if "--url-prefix" in options else ""
    own = {"SNAPFERRY_BROKER_URL": broker, "SNAPFERRY_FLOWER_BASIC_AUTH": password, **(env or {})}
    command = [*program(), "flower", "--port", str(port), "--db", str(folder / "flower" / "db"), *options]
    with started(*command, env=own, log=folder / "flower.log") as running:
        found = Flower(f"http://127.0.0.1:{port}{prefix}", running)
        until(lambda: found.answers() or running.process.poll() is not None, "Flower answers")
        assert running.process.poll() is None, running.logged()
        yield found
