"""What the processes of an embedded fleet do: the worker, and the process that takes the first steps of a job."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

from celery import signals
from celery.app.trace import trace_task

from snapferry.orchestrator.driving.dispatch import queue_drive
from snapferry.orchestrator.job_app import make_job_app
from snapferry.stores.access import TRUSTED
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry import logs

LOOK_S: Final = 0.002
"""Seconds between two looks for what nobody announces, such as that the server accepts connections."""


class Roles:
    """
    The parts of a fleet but its server, as functions that run in forked processes and return an exit status.

    *folder* has the server's socket. To the pipe *steps* they write a byte when the steps of a job were taken.
    Connects to nothing.
    """

    def __init__(self, folder: str, settings: Settings, log_level: str | None, steps: int) -> None:
        self._folder = folder
        self._settings = settings
        self._log_level = (log_level or "warning").upper()
        self._steps = steps
        # The stores are those that the command's own user named.
        self._app = make_job_app(settings, TRUSTED)
        # The fleet of one command: its events have no reader, and it has no remote control.
        self._app.conf.update(
            worker_enable_remote_control=False,
            worker_send_task_events=False,
            task_send_sent_event=False,
            # A process whose batch has ended finds the next one here. No other worker could have taken it meanwhile.
            worker_prefetch_multiplier=2,
        )
        self._app.finalize()
        signals.task_postrun.connect(self._task_ended, weak=False)

    def work(self, processes: int) -> int:
        """Run a worker with this many processes. It gets ready while the server starts."""
        while not accepts(f"{self._folder}/s"):
            time.sleep(LOOK_S)
        worker = self._app.Worker(
            queues=[COPY_QUEUE, PLAN_QUEUE],
            concurrency=processes,
            pool="prefork",
            loglevel=self._log_level,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        return worker.exitcode or 0

    def take_first_steps(self, job_id: str) -> int:
        """
        Run the task that plans a job here, as the worker runs it. No message asks for that.

        What the task wants to do later, it queues for the worker.
        """
        logs.configure(self._settings, level=self._log_level, worker=f"planner@{socket.gethostname()}")
        task = self._app.tasks["snapferry.plan_job"]
        request = {
            "id": job_id,
            "root_id": job_id,
            "retries": 0,
            "ignore_result": True,
            "argsrepr": f"job {job_id[:8]} · plan",
        }
        trace_task(task, job_id, [job_id], {}, request, app=self._app)
        return 0

    def leave_to_worker(self, job_id: str) -> int:
        """Let the worker drive a job whose planner was killed."""
        queue_drive(self._app, job_id, "its planner is gone")
        return 0

    def _task_ended(self, sender: Any = None, **_: Any) -> None:
        if sender.name not in {"snapferry.copy_batch", "snapferry.copy_parts"}:
            # A full pipe tells enough. Without a reader, the command is gone.
            with suppress(OSError):
                os.write(self._steps, b".")


def accepts(path: str) -> bool:
    """Return whether the server at the unix socket *path* accepts connections."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
