"""
The keeper of an embedded fleet: the process that starts its parts, and kills them when their owner is gone.

It holds one end of a pipe, the owner the other. However the owner ends, the pipe closes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from snapferry.workers.settings.environment import Settings

from .parts import LOOK_S, Roles

# Seconds between two looks whether a part has ended.
_WATCH_S = 0.2

# The most seconds that a killed planner is waited for.
_END_S = 0.5


@dataclass(frozen=True)
class Pipes:
    """The keeper's ends of the pipes to its owner."""

    lifeline: int
    """To read. It is closed when the owner is gone."""
    reports: int
    """To write the process group of the parts to, then which of them ended unexpectedly."""
    steps: int
    """To write a byte to whenever the steps of a job were taken."""
    orders: int
    """To read the ids of jobs from, a line each, whose first steps are to be taken at once."""

    def close(self) -> None:
        """Close what the parts do not need."""
        for descriptor in (self.lifeline, self.reports, self.orders):
            os.close(descriptor)


@dataclass(frozen=True)
class Part:
    """A process of the fleet."""

    name: str
    for_one_job: bool = False
    """It ends by itself."""
    otherwise: Callable[[], object] | None = None
    """What to do if it does not end well. None: the fleet has ended."""


class CannotStart(Exception):
    """The system starts no further process; the message names the part of the fleet."""


def keep(
    folder: str, server: str, settings: Settings, processes: int, log_level: str | None, pipes: Pipes
) -> None:
    """
    Run the keeper in a forked process, which ends: start the parts, and kill all of them when the owner is gone.

    *processes* is the number of worker processes; with 0, the server is alone.
    """
    keeper = _Keeper(folder, pipes)
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Temporary files of the parts are removed with the folder.
        tempfile.tempdir = folder
        _redirect(folder, to_stderr=log_level is not None)
        keeper.start_server(server)
        os.write(pipes.reports, f"{keeper.group}\n".encode())
        if processes:
            keeper.start_workers(Roles(folder, settings, log_level, pipes.steps), processes)
        if ended := keeper.watch():
            os.write(pipes.reports, f"{ended} ended unexpectedly".encode())
    except CannotStart as error:
        os.write(pipes.reports, str(error).encode())
    except Exception as error:  # noqa: BLE001 - the owner would wait for ever for a fleet that nobody watches
        os.write(
            pipes.reports,
            f"the keeper of the embedded fleet failed: {type(error).__name__}: {error}".encode(),
        )
    finally:
        # The owner reads the end of the log before it goes.
        select.select([pipes.lifeline], [], [])
        keeper.kill()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


class _Keeper:
    def __init__(self, folder: str, pipes: Pipes) -> None:
        self._folder = folder
        self._pipes = pipes
        self._parts: dict[int, Part] = {}
        self._roles: Roles | None = None
        self.group = 0
        """The process group of the parts, 0 before there are any."""

    def start_server(self, server: str) -> None:
        """Start the server. Raises `CannotStart`."""
        options = {
            "port": "0",
            "unixsocket": f"{self._folder}/s",
            "unixsocketperm": "700",
            "dir": self._folder,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        try:
            self.group = subprocess.Popen([server, *arguments], stdin=subprocess.DEVNULL, process_group=0).pid
        except OSError as error:
            raise CannotStart(f"cannot run {server}: {error.strerror}") from error
        self._parts[self.group] = Part("the embedded server")

    def start_workers(self, roles: Roles, processes: int) -> None:
        """Start the worker, which gets ready while the server starts."""
        self._roles = roles
        self._start(Part("the embedded worker"), partial(roles.work, processes))

    def watch(self) -> str:
        """Carry out the owner's orders until a part ends unexpectedly, and return its name; "" if the owner is gone."""
        while True:
            ready, _, _ = select.select([self._pipes.lifeline, self._pipes.orders], [], [], _WATCH_S)
            if self._pipes.lifeline in ready:
                return ""
            if self._pipes.orders in ready:
                for job_id in os.read(self._pipes.orders, 4096).decode().split():
                    self._plan(job_id)
            if ended := self._ended_part():
                return ended

    def kill(self) -> None:
        """
        Kill all parts, and wait until they have ended.

        A planner that a call to a store blocks may end much later. It is not waited for longer than `_END_S`.
        """
        if self.group:
            kill_group(self.group)
        until = time.monotonic() + _END_S
        for process, part in self._parts.items():
            with suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG) != (0, 0):
                    continue
                os.kill(process, signal.SIGKILL)
                if not part.for_one_job:
                    os.waitpid(process, 0)
                    continue
                while os.waitpid(process, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                    time.sleep(LOOK_S)

    def _plan(self, job_id: str) -> None:
        """Let a process take the first steps of a job, while the worker may still start."""
        assert self._roles is not None
        name = "the embedded planner"
        leave = partial(
            self._start, Part(name, for_one_job=True), partial(self._roles.leave_to_worker, job_id)
        )
        self._start(
            Part(name, for_one_job=True, otherwise=leave), partial(self._roles.take_first_steps, job_id)
        )

    def _ended_part(self) -> str:
        """Return the name of a part that has ended unexpectedly, "" if there is none."""
        for process, part in list(self._parts.items()):
            if (status := exit_status(process)) is None:
                continue
            if not part.for_one_job or (status and part.otherwise is None):
                return part.name
            del self._parts[process]
            if status and part.otherwise is not None:
                part.otherwise()
        return ""

    def _start(self, part: Part, role: Callable[[], int]) -> None:
        """Run *role* in a new process, whose exit status it returns. Raises `CannotStart`."""
        try:
            process = os.fork()
        except OSError as error:
            raise CannotStart(f"cannot start {part.name}: {error.strerror}") from error
        if process:
            # The child does the same. Only both together make sure that a kill of the group never misses it.
            with suppress(OSError):
                os.setpgid(process, self.group)
            self._parts[process] = part
            return
        status = 1
        try:
            os.setpgid(0, self.group)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._pipes.close()
            status = role()
        finally:
            os._exit(status)


def exit_status(process: int) -> int | None:
    """Return how a child of this process ended, 0 for well, None while it runs."""
    try:
        ended, status = os.waitpid(process, os.WNOHANG)
    except ChildProcessError:
        # Popen has already waited for a server that ended at once.
        return 0
    return status if ended else None


def kill_group(group: int) -> None:
    """Kill the processes of *group*, if there are any."""
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
