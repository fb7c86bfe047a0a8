"""The commands that show jobs: jobs, status, watch, failures and receipt."""

from __future__ import annotations

from typing import Final

import click

from snapferry.orchestrator.cli.options.common import (
    FEW_SNAPSHOTS,
    broker_option,
    job_argument,
    json_option,
    receipt_option,
    show_options,
)
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.options.values import WholeNumber
from snapferry.workers.job_state import DISMISSED, SUPERSEDED, State


@command(run="inspect:list_jobs", name="jobs")
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
    """List jobs, newest first."""


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
