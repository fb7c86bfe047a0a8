"""Control jobs: the bodies of cancel, pause, continue, priority, retry and resume."""

from __future__ import annotations

import json

import click

from snapferry.orchestrator.cli.command_line import with_fleet
from snapferry.orchestrator.cli.exit_codes import interrupt_on_sigterm, note
from snapferry.orchestrator.cli.follow import CANCEL_TIMEOUT_S, print_new_job
from snapferry.orchestrator.cli.follow import watch as watch_job
from snapferry.orchestrator.cli.inputs.job import with_job
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.text.interrupted import interrupted_text
from snapferry.orchestrator.reporting.text.status import ended_text
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.queues import Priority


@with_job
def cancel(jobs: Jobs, job_id: str, as_json: bool) -> int:
    before = jobs.status(job_id)
    if before.state.final:
        return _print(before, ended_text(before), as_json=as_json)
    jobs.cancel(job_id)
    status = jobs.wait(job_id, timeout_s=CANCEL_TIMEOUT_S)
    if status.state is State.CANCELLED:
        rest = _next(status).removeprefix("The job was cancelled. ")
        message = f"job {job_id} is cancelled. {interrupted_text(status)} {rest}".rstrip()
    elif status.state.final:
        message = f"job {job_id} ended before it could be cancelled: it is {status.state}"
    else:
        message = _with_id(status)
    return _print(status, message, as_json=as_json)


@with_job
def pause(jobs: Jobs, job_id: str, as_json: bool) -> int:
    status = jobs.pause(job_id)
    message = _with_id(status)
    if status.state.final:
        message = ended_text(status)
    return _print(status, message, as_json=as_json)


@with_job
def continue_job(jobs: Jobs, job_id: str, as_json: bool) -> int:
    paused = jobs.status(job_id).paused
    status = jobs.unpause(job_id)
    message = f"job {job_id} continues" if paused else f"job {job_id} was not paused: it is {status.state}"
    if status.state.final:
        message = ended_text(status)
    return _print(status, message, as_json=as_json)


@with_job
def priority(jobs: Jobs, job_id: str, level: str, as_json: bool) -> int:
    status, moved = jobs.prioritise(job_id, Priority(level))
    queued = f"; {counted(moved, 'queued batch', 'queued batches')} moved" if moved else ""
    message = f"job {job_id}: priority {level}{queued}"
    if status.state.final:
        message = ended_text(status)
    return _print(status, message, as_json=as_json)


@with_job
@with_show
def retry(jobs: Jobs, job_id: str, patience: float | None, watch: bool, show: Show) -> int:
    status = jobs.status(job_id)
    if status.state is State.DONE:
        message = "; ".join(filter(None, [f"job {job_id} is done: nothing failed in it", _next(status)]))
        return _print(status, message, as_json=show.as_json)
    return _new_job(jobs, jobs.retry(job_id, patience=patience), show, watch=watch)


@with_job
@with_show
def resume(jobs: Jobs, job_id: str, patience: float | None, watch: bool, show: Show) -> int:
    new = jobs.resume(job_id, patience=patience)
    if new is None:
        message = f"job {job_id} is done: nothing is left to do"
        return _print(jobs.status(job_id), message, as_json=show.as_json)
    return _new_job(jobs, new, show, watch=watch)


def _new_job(jobs: Jobs, job_id: str, show: Show, *, watch: bool) -> int:
    if not watch:
        print_new_job(job_id, quiet=show.quiet, as_json=show.as_json)
        return 0
    interrupt_on_sigterm()
    if not show.quiet:
        note(f"job {job_id}")
    return watch_job(jobs, job_id, show)


def _next(status: JobStatus) -> str:
    return with_fleet(advise(status)).text


def _with_id(status: JobStatus) -> str:
    """Return what is to be done next about a job, with the id of the job."""
    text = _next(status)
    about = f"job {status.job_id}"
    return f"{about} {text.removeprefix('The job ')}" if text.startswith("The job ") else f"{about}: {text}"


def _print(status: JobStatus, message: str, *, as_json: bool) -> int:
    click.echo(json.dumps(status_document(status), indent=2) if as_json else message)
    return 0
