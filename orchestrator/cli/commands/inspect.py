"""The commands that show jobs: jobs with its further commands, status, watch, failures and receipt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from snapferry.orchestrator.cli.options.common import (
    FEW_SNAPSHOTS,
    broker_option,
    job_argument,
    json_option,
    receipt_option,
    show_options,
)
from snapferry.orchestrator.cli.options.declare import Command, argument, command, group, option
from snapferry.orchestrator.cli.options.values import WholeNumber
from snapferry.workers.job_state import DISMISSED, SUPERSEDED, State

_Function = TypeVar("_Function", bound=Callable[..., Any])


JOBS_EXAMPLES: Final = """
Examples:

\b
  Keep what Redis alone has, every night:
    snapferry jobs export /backup/jobs.json

\b
  Redis is lost for good, and a new one runs:
    snapferry jobs recover /backup/jobs.json
"""


@group(run="inspect:list_jobs", name="jobs", epilog=JOBS_EXAMPLES)
@option("--limit", type=WholeNumber(1), default=50, metavar="N", help="List at most N jobs.")
@option(
    "--state",
    type=click.Choice([*map(str, State), SUPERSEDED, DISMISSED]),
    metavar="STATE",
    help=f"List only jobs in this state: {', '.join(State)}, superseded (failed, and a later job did its work), or"
    " dismissed (failed, and an operator dismissed it).",
)
@json_option
@broker_option
def list_jobs() -> None:
    """List jobs, newest first; export, import and recover them."""


def _file(text: str) -> Callable[[_Function], _Function]:
    return argument("path", metavar="FILE", type=click.Path(dir_okay=False), text=text)


@list_jobs.command("export", cls=Command, run="recover:export_jobs", interruptible=True)
@_file("File to write; - is standard output.")
@option("--open", "open_only", is_flag=True, help="Leave out jobs that have ended.")
@json_option
@broker_option
def export_jobs() -> None:
    """
    Write the records of all jobs and schedules to a file.

    The file is JSON, and is replaced as a whole. It has the request of each job,
    its result, the last success of each mirror and the position of each scrub.
    """


@list_jobs.command("import", cls=Command, run="recover:import_jobs", interruptible=True)
@_file("File of snapferry jobs export.")
@json_option
@broker_option
def import_jobs() -> None:
    """
    Record the ended jobs and the schedules of an export.

    Records that exist stay as they are. Nothing begins to run: jobs that had not
    ended when they were exported are counted, and left out.
    """


@list_jobs.command("recover", cls=Command, run="recover:recover_jobs", interruptible=True)
@_file("File of snapferry jobs export, or of snapferry orchestrator --export-jobs.")
@option(
    "--deleting",
    is_flag=True,
    help="Also submit jobs that delete or overwrite: sync --delete, pull.",
)
@json_option
@broker_option
def recover_jobs() -> None:
    """
    Submit the jobs of an export that had not ended, after Redis was lost.

    They keep their ids. What they had copied is found at the destination and not
    copied again. The ended jobs and the schedules are imported as well. A job that
    a mirror or scrub had queued is left to its next run.
    """


@command(run="inspect:status")
@job_argument
@option(
    "--snapshots",
    is_flag=True,
    help=f"List every snapshot, even of a job with more than {FEW_SNAPSHOTS}, and in JSON.",
)
@json_option
def status() -> None:
    """
    Show the state of a job.

    The counts in a line add up to the total at its beginning. If something is to
    be done, the last line says what, and by which command.
    """


WATCH_EXIT_CODES: Final = """
\b
Exit codes:
  0    the job is done
  1    the job failed or was cancelled
  2    bad usage or configuration
  130  interrupted
"""


@command(run="inspect:watch", epilog=WATCH_EXIT_CODES)
@job_argument
@receipt_option
@show_options
def watch() -> None:
    """
    Follow a job until it ends.

    Ctrl-C ends the command; the job continues.
    """


@command(run="inspect:failures")
@job_argument
@option("--limit", type=WholeNumber(1), metavar="N", help="List at most N objects.")
@option("--json", "as_json", is_flag=True, help="Print one JSON document per object, each on its own line.")
def failures() -> None:
    """
    List the failed objects of a job.

    Each object is listed with the reason, and with the snapshots and paths that
    need it. To try the objects again, use snapferry retry.
    """


@command(run="inspect:receipt")
@job_argument
@option("--json", "as_json", is_flag=True, help="Accepted for scripts: a receipt is always JSON.")
def receipt() -> None:
    """
    Print the receipt of a job as JSON.

    The receipt states what the job did, snapshot by snapshot, and how that was
    verified.
    """
