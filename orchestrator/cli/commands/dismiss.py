"""The command that dismisses failed jobs: dismiss."""

from __future__ import annotations

from snapferry.orchestrator.cli.options.common import broker_option, json_option
from snapferry.orchestrator.cli.options.declare import argument, command, option

EXAMPLES = """
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


@command(run="dismiss:dismiss", epilog=EXAMPLES)
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
