"""Commands and fleets in processes of their own, found again by a mark in their environment."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from snapferry.workers.broker.connection import client
from snapferry.workers.ledger.keys import WORKERS
from tests.json_documents import check_output

MARK = "SNAPFERRY_TEST_MARK"
REPOSITORY = Path(__file__).parents[2]


PATIENCE_S = 240.0
"""
How long a test waits for something that must happen before it takes it for hung.

No promise is tested by this bound: a busy machine needs many times what a quiet one needs.
"""


def until(condition: Callable[[], Any], what: str, *, timeout_s: float = PATIENCE_S) -> Any:
    """Return the condition's first true value; fail the test after *timeout_s* seconds."""
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"not within {timeout_s:.0f} s: {what}"
        # Conditions cost CPU time, of which whatever is waited for has less then.
        time.sleep(0.02 if waited_s < 1 else 0.05)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without anything that steers snapferry, plus *extra* and a mark."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # Processes that share the tests have a fixed number of columns.
        if not name.startswith(("SNAPFERRY_", "SNAPDIR_")) and name not in ("COLUMNS", "LINES")
    }
    return kept | {"PYTHONPATH": str(REPOSITORY), MARK: uuid.uuid4().hex} | dict(extra or {})


@dataclass
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str
    mark: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def program(before: str = "") -> list[str]:
    """Return the command line, without arguments; *before* is Python that its process runs first."""
    if not before:
        return [sys.executable, "-m", "snapferry"]
    return [sys.executable, "-c", f"{before}\nfrom snapferry.orchestrator.cli import main\nmain()"]


def slow_batches(seconds: float) -> str:
    """Return Python for `program` that makes each batch of a worker take at least *seconds*."""
    return f"""
import time, snapferry.workers.copying.tasks as t
run = t.run_batch
def slowly(*a):
    time.sleep({seconds})
    return run(*a)
t.run_batch = slowly
"""


def snapferry(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
    cwd: Path = REPOSITORY,
) -> Finished:
    """Run the command line to its end, in the directory *cwd*."""
    return finished([*program(), *arguments], env, timeout_s, cwd)


def finished(
    command: list[str],
    env: Mapping[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
    cwd: Path = REPOSITORY,
) -> Finished:
    """Run any command to its end, in the directory *cwd*."""
    own = environment(env)
    ended = subprocess.run(  # noqa: PLW1510 - the exit code is what tests look at
        command,
        env=own,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    check_output(command, ended.returncode, ended.stdout)
    return Finished(ended.returncode, ended.stdout, ended.stderr, own[MARK])


@contextmanager
def started(
    *command: str, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[Started]:
    """Start a command; whatever is left of it at the end is killed, and only that."""
    own = environment(env)
    out = log.open("ab") if log else subprocess.PIPE
    process = subprocess.Popen(
        [*command],
        env=own,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
    )
    running = Started(process, own[MARK], log, own.get("TMPDIR", ""))
    try:
        yield running
    finally:
        running.kill_all()
        process.wait(PATIENCE_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if log:
            out.close()  # type: ignore[union-attr]


@dataclass
class Started:
    """A command that runs, and everything that it started."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path | None = None
    folder: str = ""

    def family(self) -> list[int]:
        """Return the ids of all living processes that bear the command's mark, or are in its session."""
        about = self.about(self.folder) if self.folder else []
        return sorted({*marked(self.mark), *of_session(self.process.pid), *about})

    @staticmethod
    def about(folder: str) -> list[int]:
        """Return the ids of processes that name *folder*: a Redis server writes its title over its environment."""
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [number for number in numbers if f"unixsocket:{folder}/" in command_of(number)]

    def kill_all(self) -> None:
        """SIGKILL the command and every process of the family."""
        for number in {self.process.pid, *self.family()} if self.process.poll() is None else self.family():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def logged(self) -> str:
        """Return what the command has written so far."""
        assert self.log is not None
        return self.log.read_text(errors="replace")

    def said(self) -> list[str]:
        """Return the messages of a worker's or an orchestrator's log so far; each line must be one of JSON."""
        return [json.loads(line)["message"] for line in self.logged().splitlines()]

    def batches_run(self) -> int:
        """Return how many deliveries of batches a worker has come to the end of, whatever that was."""
        return sum(message.startswith("batch ") for message in self.said())


def marked(mark: str) -> list[int]:
    """Return the ids of living processes whose environment holds *mark*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if mark.encode() in (entry / "environ").read_bytes() and _state(entry) != "Z":
                    found.append(int(entry.name))
    return sorted(found)


def of_session(session: int) -> list[int]:
    """Return the ids of living processes of a session. Some programs write their title over their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(") ")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return sorted(found)


def command_of(process: int) -> str:
    """Return a process's command line, empty if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def children_of(process: int) -> list[int]:
    """Return the ids of a process's children."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _state(entry: Path) -> str:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0]


@dataclass
class Fleet:
    """Worker and orchestrator processes around one Redis."""

    url: str
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def orchestrator(self, *arguments: str, before: str = "") -> Iterator[Started]:
        """Run an orchestrator, ready when this is entered; *before* as for `program`."""
        with self._role("orchestrator", arguments, before=before) as running:
            yield running

    @contextmanager
    def worker(self, name: str = "worker", *arguments: str, before: str = "") -> Iterator[Started]:
        """Run a worker, ready and announced when this is entered; *before* as for `program`."""
        node = name if "@" in name else f"{name}@{socket.gethostname()}"
        earlier = self._announcement(node)
        with self._role("worker", ("--hostname", node, *arguments), name, before) as running:
            # A thread of the worker announces it, when it is ready. Jobs are cut for the workers that are announced.
            until(
                lambda: self._announcement(node) != earlier or running.process.poll() is not None,
                f"{node} announced",
            )
            yield running

    def _announcement(self, node: str) -> Any:
        """Return what a worker has announced last: None if it has not, the error if Redis does not answer."""
        try:
            return client(self.url, retries=0).hget(WORKERS, node)
        except RedisError as error:
            return error

    @contextmanager
    def _role(
        self, role: str, arguments: Sequence[str], name: str = "", before: str = ""
    ) -> Iterator[Started]:
        log = self.folder / f"{name or role}-{uuid.uuid4().hex[:6]}.log"
        command = [*program(before), role, "-c", "2", *arguments]
        with started(*command, env={"SNAPFERRY_BROKER_URL": self.url, **self.env}, log=log) as running:
            until(
                lambda: " ready." in running.logged() or running.process.poll() is not None, f"{role} ready"
            )
            assert running.process.poll() is None, running.logged()
            yield running

    def sync(self, *arguments: str, timeout_s: float = PATIENCE_S) -> Finished:
        """Run ``snapferry sync`` on this fleet."""
        return snapferry("sync", "--broker", self.url, *arguments, env=self.env, timeout_s=timeout_s)
