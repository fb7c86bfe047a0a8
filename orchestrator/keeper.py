"""
The keeper of an embedded fleet: the process that starts its parts, and kills them when their owner is gone.

It holds one end of a pipe, the owner the other. However the owner ends, the pipe closes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from typing import Any

from celery import signals

from snapferry.stores.access import TRUSTED
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings

from .job_app import make_job_app

# Seconds between two checks whether the server accepts connections: it does not announce that.
LOOK_S = 0.002


def accepts(path: str) -> bool:
    """Return whether the server at the unix socket *path* accepts connections."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def keep(
    folder: str,
    server: str,
    settings: Settings,
    processes: int,
    log_level: str | None,
    lifeline: int,
    reports: int,
    steps: int,
) -> None:
    """
    Run the keeper in a forked process, which ends: start the parts, and kill all of them when the owner is gone.

    *lifeline* is the end to read of the owner's pipe. To *reports* it writes the process group of the parts, then which
    of them ended unexpectedly; to *steps*, a byte whenever the steps of a job were taken.
    """
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
            process = _start_worker(folder, settings, processes, group, (lifeline, reports), steps, log_level)
            parts[process] = "the embedded worker"
        while not ended and not readable(lifeline, 0.2):
            ended = ended_part(parts)
        if ended:
            os.write(reports, f"{ended} ended unexpectedly".encode())
        select.select([lifeline], [], [])
    finally:
        if group:
            kill_group(group)
        for process in parts:
            with suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG) == (0, 0):
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def readable(descriptor: int, timeout_s: float) -> bool:
    """Return whether *descriptor* can be read, or the other end of its pipe is closed, within *timeout_s* seconds."""
    ready, _, _ = select.select([descriptor], [], [], timeout_s)
    return bool(ready)


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


def ended_part(parts: dict[int, str]) -> str:
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


def _tell_steps(steps: int) -> None:
    """Write to the pipe *steps* when a task has ended that takes the steps of a job, and so may have ended the job."""

    def tell(sender: Any = None, **_: Any) -> None:
        if sender.name not in {"snapferry.copy_batch", "snapferry.copy_parts"}:
            # A full pipe tells enough. Without a reader, the command is gone.
            with suppress(OSError):
                os.write(steps, b".")

    signals.task_postrun.connect(tell, weak=False)


def _start_worker(
    folder: str,
    settings: Settings,
    processes: int,
    group: int,
    keepers_own: tuple[int, ...],
    steps: int,
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
        _tell_steps(steps)
        while not accepts(f"{folder}/s"):
            time.sleep(LOOK_S)
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
