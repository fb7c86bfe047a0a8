"""What the processes of an embedded fleet do: the worker, and the process that takes the first steps of a job."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

from celery import signals

from snapferry.orchestrator.driving.dispatch import queue_drive
from snapferry.orchestrator.driving.drive import drive_job
from snapferry.orchestrator.driving.store_outage import Wait, wait_for
from snapferry.orchestrator.job_app import make_job_app
from snapferry.orchestrator.tasks import conclude
from snapferry.stores.access import TRUSTED
from snapferry.stores.errors import StoreError
from snapferry.workers.broker.open_ledger import open_ledger
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry import logs

log = logging.getLogger(__name__)

LOOK_S: Final = 0.002
"""Seconds between two checks whether the server accepts connections: it does not announce that."""


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
            worker_enable_remote_control=False, worker_send_task_events=False, task_send_sent_event=False
        )
        self._app.finalize()

    def work(self, processes: int) -> int:
        """Run a worker with this many processes. It gets ready while the server starts."""
        signals.task_postrun.connect(self._task_ended, weak=False)
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
        Drive a job for the first time, which plans it. No message asks for that.

        After an error the worker goes on.
        """
        logs.configure(self._settings, level=self._log_level, worker=f"planner@{socket.gethostname()}")
        ledger = open_ledger(self._settings)
        with logs.about(job=job_id):
            try:
                outcome = drive_job(self._app, ledger, job_id, TRUSTED)
            except Exception as error:  # noqa: BLE001 - the worker meets it as well, and handles it
                log.info("the worker plans the job: %s", error, extra=logs.fields(error=type(error).__name__))
                # The worker would otherwise wait a second time until the store does not answer, before it waits for it.
                wait = wait_for(ledger, job_id, error, TRUSTED) if isinstance(error, StoreError) else Wait()
                return self.leave_to_worker(job_id, in_s=wait.pause_s)
            conclude(self._app, ledger, job_id, "plan_job", outcome)
        self._tell_step()
        return 0

    def leave_to_worker(self, job_id: str, *, in_s: float | None = None) -> int:
        """Let the worker drive a job, after *in_s* seconds if given, and handle what went wrong."""
        queue_drive(self._app, job_id, "its first steps failed", in_s=in_s)
        return 0

    def _task_ended(self, sender: Any = None, **_: Any) -> None:
        if sender.name not in {"snapferry.copy_batch", "snapferry.copy_parts"}:
            self._tell_step()

    def _tell_step(self) -> None:
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
