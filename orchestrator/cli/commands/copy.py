"""The commands that copy: sync, plan and submit."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options import places
from snapferry.orchestrator.cli.options.common import OUTPUT, receipt_option, show_options
from snapferry.orchestrator.cli.options.copy import copy_dry_run_option, copy_options
from snapferry.orchestrator.cli.options.declare import command, examples, option
from snapferry.orchestrator.cli.options.job import verbose_option

EXAMPLES: Final = """
Examples:

\b
  Copy a snapshot from a directory to a bucket, on this machine alone:
    snapferry sync /srv/store s3://backup/store --id 8b1f...

\b
  Copy the snapshot that has the name nightly, and give it this name there:
    snapferry sync --id nightly@ --from /srv/store --to s3://backup/store \\
      --names

\b
  Copy between two S3 services, each with its own endpoint and profile:
    snapferry sync --id 8b1f... \\
      --from 's3://a?endpoint_url=https://s3.one.example&profile=one' \\
      --to   's3://b?endpoint_url=https://s3.two.example&profile=two'

\b
  Mirror every snapshot, by a fleet of workers that share a Redis server:
    snapferry sync --broker redis://queue:6379/0 --from ... --to ... \\
      --all --delete

\b
Exit codes:
  0    done
  1    the job failed, or its receipt could not be written
  2    bad usage or configuration
  130  interrupted
"""


@command(run="copy:sync", places=places.of_copy, interruptible=True, epilog=EXAMPLES)
@copy_options
@copy_dry_run_option
@receipt_option
@verbose_option
@show_options
def sync() -> None:
    """
    Copy snapshots between two stores.

    Objects that the destination has are not copied again, so running the same
    command again resumes an interrupted copy. Each snapshot is published as soon
    as all of its objects are at the destination.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work.
    """


PLAN_EXAMPLES: Final = examples(
    ("Show how much a copy of all snapshots would copy", "snapferry plan /srv/store s3://backup/store --all"),
    (
        "Show what it would cost, by a table of prices",
        "snapferry plan /srv/store s3://backup/store --all --prices prices.toml",
    ),
)


@command(run="copy:plan", places=places.of_copy, interruptible=True, epilog=PLAN_EXAMPLES)
@copy_options
@verbose_option
@show_options
def plan() -> None:
    """
    Show what a sync would copy and cost, without copying.

    An alias of snapferry sync --dryrun. Like a sync, it checks for every object
    whether the destination has it.
    """


SUBMIT: Final = "job=$(snapferry submit -q s3://live/store s3://backup/store --all)"
SUBMIT_EXAMPLES: Final = examples(
    (
        "Queue a copy of all snapshots, and follow it",
        f"export SNAPFERRY_BROKER_URL=redis://queue:6379/0\n{SUBMIT}\nsnapferry watch $job",
    ),
)


@command(run="copy:submit", places=places.of_copy, epilog=SUBMIT_EXAMPLES)
@copy_options
@copy_dry_run_option
@option("-q", "--quiet", is_flag=True, section=OUTPUT, help="Print nothing but the job's id.")
@option("--json", "as_json", is_flag=True, section=OUTPUT, help='Print {"job": ID}.')
def submit() -> None:
    """
    Queue a sync job and print its id.

    The fleet runs the job. Follow it with snapferry watch.
    """
