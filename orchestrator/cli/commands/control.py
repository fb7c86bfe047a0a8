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
from snapferry.orchestrator.cli.options.declare import argument, command, examples, option

watch_option = option("--watch", is_flag=True, section=OUTPUT, help="Follow the new job until it ends.")


@command(run="control:cancel", epilog=examples(("Stop a job", "snapferry cancel 8b1f")))
@job_argument
@json_option
def cancel() -> None:
    """
    Stop a job.

    Running copies are aborted. Objects that were copied and snapshots that were
    published stay.
    """


PAUSE_EXAMPLES = examples(
    ("Pause a job, and let it continue later", "snapferry pause 8b1f\nsnapferry continue 8b1f")
)


@command(run="control:pause", epilog=PAUSE_EXAMPLES)
@job_argument
@json_option
def pause() -> None:
    """
    Pause a job.

    The job stops within 30 seconds: objects in flight have 15 seconds to finish.
    Objects that were copied stay. To continue it, use snapferry continue.
    """


@command(
    run="control:continue_job",
    name="continue",
    epilog=examples(("Continue a paused job", "snapferry continue 8b1f")),
)
@job_argument
@json_option
def continue_job() -> None:
    """
    Continue a paused job.

    For a job that was cancelled or failed, use snapferry resume.
    """


PRIORITY_EXAMPLES = examples(("Let a job go before all others", "snapferry priority 8b1f high"))


@command(run="control:priority", epilog=PRIORITY_EXAMPLES)
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


RETRY_EXAMPLES = examples(
    ("See which objects failed, and try them again", "snapferry failures 8b1f\nsnapferry retry 8b1f --watch"),
)


@command(run="control:retry", epilog=RETRY_EXAMPLES)
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


RESUME_EXAMPLES = examples(
    ("Resume a job that was cancelled, and follow it", "snapferry resume 8b1f --watch"),
)


@command(run="control:resume", epilog=RESUME_EXAMPLES)
@job_argument
@patience_option
@watch_option
@show_options
def resume() -> None:
    """
    Resume a cancelled or failed job as a new job.

    What the job copied stays copied. A verify that reached --max-bytes or
    --max-time is resumed where it stopped. The id of the new job is printed. For
    a paused job, use snapferry continue.
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
    Dismiss a failed job that nobody will repair.

    A failed job counts as failed, and its alert stays, until a retry or resume
    of it is done, a later run of its mirror is done, or it is dismissed. The job
    stays in the list with who dismissed it, when and why. It may still be
    retried.
    """
