"""The commands that control jobs: cancel, pause, continue, priority, retry and resume."""

from __future__ import annotations

import json

import click

from snapferry.orchestrator.cli.exit_codes import interrupt_on_sigterm, note, usage
from snapferry.orchestrator.cli.follow import CANCEL_TIMEOUT_S, print_new_job
from snapferry.orchestrator.cli.follow import watch as watch_job
from snapferry.orchestrator.cli.options.common import (
    OUTPUT,
    Show,
    json_option,
    patience_option,
    show_options,
)
from snapferry.orchestrator.cli.options.declare import argument, command, option
from snapferry.orchestrator.cli.options.job import job_argument
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.queues import Priority

watch_option = option("--watch", is_flag=True, section=OUTPUT, help="Follow the new job until it ends.")


@command()
@job_argument
@json_option
def cancel(jobs: Jobs, job_id: str, as_json: bool) -> int:
    """
    Stop a job.

    Running copies are aborted. Objects that were copied and snapshots that were
    published stay.
    """
    before = jobs.status(job_id)
    if before.state.final:
        return _print(before, _already_ended(before), as_json=as_json)
    jobs.cancel(job_id)
    status = jobs.wait(job_id, timeout_s=CANCEL_TIMEOUT_S)
    if status.state is State.CANCELLED:
        message = (
            f"job {job_id} is cancelled. Copied objects are kept. To continue: snapferry resume {job_id}"
        )
    elif status.state.final:
        message = f"job {job_id} ended before it could be cancelled: it is {status.state}"
    else:
        message = f"job {job_id} is being cancelled; some of its batches are still stopping"
    return _print(status, message, as_json=as_json)


@command()
@job_argument
@json_option
def pause(jobs: Jobs, job_id: str, as_json: bool) -> int:
    """
    Pause a job.

    The job stops within 30 seconds: objects in flight have 15 seconds to finish.
    Objects that were copied stay. To resume the job, use snapferry continue.
    """
    status = jobs.pause(job_id)
    message = f"job {job_id} is paused. To continue: snapferry continue {job_id}"
    if status.state.final:
        message = _already_ended(status)
    return _print(status, message, as_json=as_json)


@command(name="continue")
@job_argument
@json_option
def continue_job(jobs: Jobs, job_id: str, as_json: bool) -> int:
    """
    Resume a paused job.

    To continue a job that was cancelled or failed, use snapferry resume.
    """
    paused = jobs.status(job_id).paused
    status = jobs.unpause(job_id)
    message = f"job {job_id} continues" if paused else f"job {job_id} was not paused: it is {status.state}"
    if status.state.final:
        message = _already_ended(status)
    return _print(status, message, as_json=as_json)


@command()
@job_argument
@argument(
    "level",
    type=click.Choice(["high", "normal", "low"]),
    metavar="LEVEL",
    text="high, normal or low.",
)
@json_option
def priority(jobs: Jobs, job_id: str, level: str, as_json: bool) -> int:
    """
    Change the priority of a job.

    The new priority also applies to batches of the job that are already queued.
    """
    status, moved = jobs.prioritise(job_id, Priority(level))
    if status.state.final:
        usage(_already_ended(status))
    queued = f"; {counted(moved, 'queued batch', 'queued batches')} moved" if moved else ""
    return _print(status, f"job {job_id}: priority {level}{queued}", as_json=as_json)


@command()
@job_argument
@patience_option
@watch_option
@show_options
def retry(jobs: Jobs, job_id: str, patience: float | None, watch: bool, show: Show) -> int:
    """
    Copy the failed objects of a job again.

    Snapshots that become complete are published. The retry is a new job, whose
    id is printed.
    """
    return _new_job(jobs, jobs.retry(job_id, patience=patience), show, watch=watch)


@command()
@job_argument
@patience_option
@watch_option
@show_options
def resume(jobs: Jobs, job_id: str, patience: float | None, watch: bool, show: Show) -> int:
    """
    Continue a cancelled or failed job as a new job.

    The id of the new job is printed. To resume a paused job, use snapferry
    continue.
    """
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


def _already_ended(status: JobStatus) -> str:
    return f"job {status.job_id} has already ended: it is {status.state}"


def _print(status: JobStatus, message: str, *, as_json: bool) -> int:
    click.echo(json.dumps(status_document(status), indent=2) if as_json else message)
    return 0
