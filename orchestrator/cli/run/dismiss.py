"""Dismiss failed jobs, and take that back."""

from __future__ import annotations

import getpass
import json
import socket
from contextlib import suppress
from typing import Any

import click

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.inputs.job import with_job
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import JobQuery, JobRefused, Jobs
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.text.status import ended_text
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import State


def dismiss(
    job: str | None, everything: bool, reason: str | None, undo: bool, as_json: bool, broker: str | None
) -> int:
    if (job is None) == (not everything):
        usage("name one JOB, or use --all")
    if undo and (everything or reason is not None):
        usage("--undo takes one JOB, and no --all or --reason")
    if everything:
        settings = read_settings(broker)
        with on_fleet(settings, advice="") as jobs:
            return _dismiss_all(jobs, reason or "", as_json=as_json)
    command: Any = with_job(_dismiss_job)
    return int(command(job=job, broker=broker, reason=reason or "", undo=undo, as_json=as_json))


def _dismiss_job(jobs: Jobs, job_id: str, reason: str, undo: bool, as_json: bool) -> int:
    before = jobs.status(job_id)
    if before.state.final and before.state is not State.FAILED:
        status, message = before, ended_text(before)
    elif undo:
        status = jobs.undismiss(job_id)
        message = f"job {job_id} counts as failed again"
        if status.dismissed is not None:
            message = f"job {job_id} is still dismissed, because the job that continues it is"
    else:
        status = jobs.dismiss(job_id, by=who(), why=reason)
        message = f"job {job_id} is dismissed: it does not count as failed any more"
    click.echo(json.dumps(status_document(status), indent=2) if as_json else message)
    return 0


def _dismiss_all(jobs: Jobs, reason: str, *, as_json: bool) -> int:
    dismissed = []
    for status in list(jobs.each(JobQuery((State.FAILED,)))):
        if status.unresolved:
            # Its state is final, but its record may expire.
            with suppress(JobRefused):
                jobs.dismiss(status.job_id, by=who(), why=reason)
                dismissed.append(status.job_id)
    if as_json:
        click.echo(json.dumps({"dismissed": dismissed}, indent=2))
    else:
        click.echo(
            f"{counted(len(dismissed), 'failed job')} dismissed" if dismissed else "no job counts as failed"
        )
    return 0


def who() -> str:
    """Return the user and the machine of this command, as they call themselves."""
    user = ""
    with suppress(OSError, KeyError):
        user = getpass.getuser()
    return f"{user or 'unknown'}@{socket.gethostname()}"
