"""The commands that steer jobs: cancel, pause, continue, priority, retry and resume."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from snapferry.orchestrator.cli.exit_codes import interrupt_on_sigterm, note, usage
from snapferry.orchestrator.cli.follow import CANCEL_TIMEOUT_S
from snapferry.orchestrator.cli.follow import watch as watch_job
from snapferry.orchestrator.cli.options import Show, about_a_job, json_option, patience_option, show_options
from snapferry.stores.text.format import counted

from .copy import print_new_job

if TYPE_CHECKING:
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.workers.ledger import JobStatus

watch_option = click.option("--watch", is_flag=True, help="Follow the new job until it ends.")


@click.command()
@about_a_job
@json_option
def cancel(jobs: Jobs, job_id: str, as_json: bool) -> int:
    """Stop a job. Running copies are aborted; what was copied and published stays."""
    from snapferry.workers.ledger import State

    before = jobs.status(job_id)
    if before.state.final:
        return _say(before, f"job {job_id} has ended already: it is {before.state}", as_json=as_json)
    jobs.cancel(job_id)
    status = jobs.wait(job_id, timeout_s=CANCEL_TIMEOUT_S)
    if status.state is State.CANCELLED:
        words = f"job {job_id} is cancelled. What was copied stays. To go on: snapferry resume {job_id}"
    elif status.state.final:
        words = f"job {job_id} came to its end before it could be cancelled: it is {status.state}"
    else:
        words = f"job {job_id} is being cancelled; what still runs has not let go yet"
    return _say(status, words, as_json=as_json)


@click.command()
@about_a_job
@json_option
def pause(jobs: Jobs, job_id: str, as_json: bool) -> int:
    """Hold a job within 30 seconds. Objects in flight have 15 seconds to end; what was copied stays."""
    status = jobs.pause(job_id)
    words = f"job {job_id} is paused. To go on: snapferry continue {job_id}"
    if status.state.final:
        words = f"job {job_id} has ended already: it is {status.state}"
    return _say(status, words, as_json=as_json)


@click.command(name="continue")
@about_a_job
@json_option
def continue_job(jobs: Jobs, job_id: str, as_json: bool) -> int:
    """Let a paused job go on."""
    paused = jobs.status(job_id).paused
    status = jobs.unpause(job_id)
    words = f"job {job_id} goes on" if paused else f"job {job_id} was not paused: it is {status.state}"
    if status.state.final:
        words = f"job {job_id} has ended already: it is {status.state}"
    return _say(status, words, as_json=as_json)


@click.command()
@about_a_job
@click.argument("level", type=click.Choice(["high", "normal", "low"]))
@json_option
def priority(jobs: Jobs, job_id: str, level: str, as_json: bool) -> int:
    """Change whose batches a fleet takes first: also of a job that runs, and of its batches that wait."""
    from snapferry.workers.queues import Priority

    status, moved = jobs.prioritise(job_id, Priority(level))
    if status.state.final:
        usage(f"job {job_id} has ended already: it is {status.state}")
    waiting = f"; {counted(moved, 'batch', 'batches')} that waited moved" if moved else ""
    return _say(status, f"job {job_id}: priority {level}{waiting}", as_json=as_json)


@click.command()
@about_a_job
@patience_option
@watch_option
@show_options
def retry(jobs: Jobs, job_id: str, patience: float | None, watch: bool, show: Show) -> int:
    """
    Copy the objects that failed in a job, and publish what becomes whole.

    They go into a new job, whose id is printed.
    """
    return _new_job(jobs, jobs.retry(job_id, patience=patience), show, watch=watch)


@click.command()
@about_a_job
@patience_option
@watch_option
@show_options
def resume(jobs: Jobs, job_id: str, patience: float | None, watch: bool, show: Show) -> int:
    """
    Do what is left of a job that was cancelled or failed.

    It goes into a new job, whose id is printed.
    """
    new = jobs.resume(job_id, patience=patience)
    if new is None:
        return _say(jobs.status(job_id), f"job {job_id} is done: nothing is left to do", as_json=show.as_json)
    return _new_job(jobs, new, show, watch=watch)


def _new_job(jobs: Jobs, job_id: str, show: Show, *, watch: bool) -> int:
    if not watch:
        print_new_job(job_id, quiet=show.quiet, as_json=show.as_json)
        return 0
    interrupt_on_sigterm()
    if not show.quiet:
        note(f"job {job_id}")
    return watch_job(jobs, job_id, show)


def _say(status: JobStatus, words: str, *, as_json: bool) -> int:
    from snapferry.orchestrator.reporting.documents import status_document

    click.echo(json.dumps(status_document(status), indent=2) if as_json else words)
    return 0
