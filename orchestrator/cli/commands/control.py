"""The commands that control jobs: cancel, pause, continue, priority, retry, resume and dismiss."""

from __future__ import annotations

import click

from snapferry.orchestrator.cli.options.common import (
    OUTPUT,
    broker_option,
    job_argument,
    json_option,
    patience_option,
    show_options,
)
from snapferry.orchestrator.cli.options.declare import argument, command, option

watch_option = option("--watch", is_flag=True, section=OUTPUT, help="Follow the new job until it ends.")


@command(run="control:cancel")
@job_argument
@json_option
def cancel() -> None:
    """
    Stop a job.

    Running copies are aborted. Objects that were copied and snapshots that were
    published stay.
    """


@command(run="control:pause")
@job_argument
@json_option
def pause() -> None:
    """
    Pause a job.

    The job stops within 30 seconds: objects in flight have 15 seconds to finish.
    Objects that were copied stay. To resume the job, use snapferry continue.
    """


@command(run="control:continue_job", name="continue")
@job_argument
@json_option
def continue_job() -> None:
    """
    Resume a paused job.

    To continue a job that was cancelled or failed, use snapferry resume.
    """


@command(run="control:priority")
@job_argument
@argument(
    "level",
    type=click.Choice(["high", "normal", "low"]),
    metavar="LEVEL",
    text="high, normal or low.",
)
@json_option
def priority() -> None:
    """
    Change the priority of a job.

    The new priority also applies to batches of the job that are already queued.
    """


@command(run="control:retry")
@job_argument
@patience_option
@watch_option
@show_options
def retry() -> None:
    """
    Try the failed objects of a job again.

    A copy publishes the snapshots that become complete. A verify checks whether
    the objects were repaired. The retry is a new job, whose id is printed.
    """


@command(run="control:resume")
@job_argument
@patience_option
@watch_option
@show_options
def resume() -> None:
    """
    Continue a cancelled, failed or bounded job as a new job.

    The id of the new job is printed. To resume a paused job, use snapferry
    continue.
    """


DISMISS_EXAMPLES = """
Examples:

\b
  Dismiss a job whose source is gone for good:
    snapferry dismiss 8b1f --reason "the old bucket was deleted"

\b
  Dismiss all failed jobs, after an outage whose work was done otherwise:
    snapferry dismiss --all --reason "copied by hand, ticket 4711"

\b
  List the jobs that were dismissed:
    snapferry jobs --state dismissed
"""


@command(run="dismiss:dismiss", epilog=DISMISS_EXAMPLES)
@argument(
    "job",
    metavar="[JOB]",
    required=False,
    text="Id of the job, or its first digits if no other job has them.",
)
@option("--all", "everything", is_flag=True, help="Dismiss every failed job that no later job has repaired.")
@option("--reason", metavar="TEXT", help="Why nobody will repair it. It is kept in the record of the job.")
@option("--undo", is_flag=True, help="Count the job as failed again.")
@json_option
@broker_option
def dismiss() -> None:
    """
    Count a failed job as failed no more: nobody will repair it.

    A failed job counts as failed, and its alert stays, until a retry or resume
    of it is done, a later run of its mirror is done, or it is dismissed. The job
    stays in the list with who dismissed it, when and why. It may still be
    retried.
    """
