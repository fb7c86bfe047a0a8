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
from snapferry.orchestrator.cli.options.declare import Command, argument, command, examples, group, option
from snapferry.orchestrator.cli.options.values import WholeNumber
from snapferry.workers.job_state import DISMISSED, SUPERSEDED, State

_Function = TypeVar("_Function", bound=Callable[..., Any])


JOBS_EXAMPLES: Final = """
Examples:

\b
  List the jobs that failed and that nobody has repaired:
    snapferry jobs --state failed

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
    """List jobs, newest first; export, import and recover their records."""


def _file(text: str) -> Callable[[_Function], _Function]:
    return argument("path", metavar="FILE", type=click.Path(dir_okay=False), text=text)


@list_jobs.command(
    "export",
    cls=Command,
    run="recover:export_jobs",
    interruptible=True,
    epilog=examples(("Keep what Redis alone has", "snapferry jobs export /backup/jobs.json")),
)
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


@list_jobs.command(
    "import",
    cls=Command,
    run="recover:import_jobs",
    interruptible=True,
    epilog=examples(("Bring the history of jobs to a new Redis", "snapferry jobs import /backup/jobs.json")),
)
@_file("File of snapferry jobs export.")
@json_option
@broker_option
def import_jobs() -> None:
    """
    Record the ended jobs and the schedules of an export.

    Records that exist stay as they are. Nothing begins to run: jobs that had not
    ended when they were exported are counted, and left out.
    """


@list_jobs.command(
    "recover",
    cls=Command,
    run="recover:recover_jobs",
    interruptible=True,
    epilog=examples(("Go on with a new Redis", "snapferry jobs recover /backup/jobs.json")),
)
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


STATUS_EXAMPLES: Final = examples(
    ("Show a job by the first digits of its id", "snapferry status 8b1f"),
    ("Read the state of a job in a script", "snapferry status 8b1f --json | jq -r .state"),
)


@command(run="inspect:status", epilog=STATUS_EXAMPLES)
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


WATCH_EXAMPLES: Final = examples(
    ("Follow a job, and keep its receipt", "snapferry watch 8b1f --receipt receipt.json"),
    codes={
        0: "the job is done",
        1: "the job failed or was cancelled",
        2: "bad usage or configuration",
        130: "interrupted",
    },
)


@command(run="inspect:watch", epilog=WATCH_EXAMPLES)
@job_argument
@receipt_option
@show_options
def watch() -> None:
    """
    Follow a job until it ends.

    Ctrl-C ends the command; the job continues.
    """


FAILURES_EXAMPLES: Final = examples(
    ("List the first failed objects of a job", "snapferry failures 8b1f --limit 20"),
    ("List the paths that need them", "snapferry failures 8b1f --json | jq -r '.places[]?.path'"),
)


@command(run="inspect:failures", epilog=FAILURES_EXAMPLES)
@job_argument
@option("--limit", type=WholeNumber(1), metavar="N", help="List at most N objects.")
@option("--json", "as_json", is_flag=True, help="Print one JSON document per object, each on its own line.")
def failures() -> None:
    """
    List the failed objects of a job.

    Each object is listed with the reason, and with the snapshots and paths that
    need it. To try the objects again, use snapferry retry.
    """


RECEIPT_EXAMPLES: Final = examples(("Keep the receipt of a job", "snapferry receipt 8b1f > receipt.json"))


@command(run="inspect:receipt", epilog=RECEIPT_EXAMPLES)
@job_argument
@option("--json", "as_json", is_flag=True, help="Accepted for scripts: a receipt is always JSON.")
def receipt() -> None:
    """
    Print the receipt of a job as JSON.

    The receipt states what the job did, snapshot by snapshot, and how that was
    verified.
    """
