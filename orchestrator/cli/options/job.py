"""Options of every command that begins a job: its snapshots, its limits, and its place in the fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from snapferry.workers.settings.quantities import MOST_REQUESTS

from .common import FLEET, LIMITS, OUTPUT, broker_option, patience_option
from .declare import option
from .values import QueueName, Rate, WholeNumber

SNAPSHOTS: Final = "Snapshots"

Options = tuple[Callable[[Any], Any], ...]


def _none_for_zero(ctx: click.Context, param: click.Parameter, value: int) -> int | None:
    """Return a limit, None for 0."""
    return value or None


def snapshot_options(verb: str, store: str) -> Options:
    """Return the options that choose the snapshots of *store* for a command that does *verb* with them."""
    return (
        option(
            "--id",
            "snapshot_ids",
            multiple=True,
            metavar="ID",
            section=SNAPSHOTS,
            help=f"Snapshot to {verb}: its id, the first digits of its id, NAME@ or latest. May be repeated.",
        ),
        option(
            "--ids-from",
            metavar="FILE",
            section=SNAPSHOTS,
            help="File of snapshots as for --id, one per line, or - for standard input. Empty lines and # comments are"
            " ignored.",
        ),
        option(
            "--all",
            "everything",
            is_flag=True,
            section=SNAPSHOTS,
            help=f"{verb.capitalize()} every snapshot of {store}.",
        ),
    )


LIMIT_OPTIONS: Final[Options] = (
    option(
        "-j",
        "--jobs",
        "jobs",
        type=WholeNumber(0, 1024),
        default=0,
        callback=_none_for_zero,
        envvar="SNAPDIR_JOBS",
        metavar="N",
        section=LIMITS,
        help="Limit objects in flight to N, across all workers; 0 means as many as the stores sustain.",
    ),
    option(
        "--limit-rate",
        "rate",
        type=Rate(),
        envvar="SNAPDIR_LIMIT_RATE",
        metavar="RATE",
        section=LIMITS,
        help="Limit what this job reads from its source to RATE bytes per second, such as 500k, 100M or 1.5Gi, across"
        " all workers. Writes do not count. A heal also counts what it reads and writes in its store.",
    ),
    option(
        "--max-requests",
        "requests",
        type=WholeNumber(0, MOST_REQUESTS),
        default=0,
        callback=_none_for_zero,
        envvar="SNAPDIR_MAX_REQUESTS",
        metavar="N",
        section=LIMITS,
        help="Limit requests to N per second at each store, across all workers; 0 means no limit.",
    ),
    patience_option,
)

FLEET_OPTIONS: Final[Options] = (
    broker_option,
    option(
        "--priority",
        type=click.Choice(["high", "normal", "low"]),
        default="normal",
        metavar="LEVEL",
        section=FLEET,
        help="Priority of the job's batches: high, normal or low. At equal priority, small jobs run before the"
        " remainder of large ones.",
    ),
    option(
        "--queue",
        type=QueueName(),
        completes="queue",
        default="",
        metavar="NAME",
        default_text="default",
        section=FLEET,
        help="Queue for the job's batches, so that a slow store does not delay other jobs. A worker must serve the"
        " queue.",
    ),
)

detach_option = option(
    "--detach",
    is_flag=True,
    section=OUTPUT,
    help="Queue the job for the fleet, print the id of the job, and end. Follow it with snapferry watch.",
)


def dry_run_option(text: str) -> Callable[[Any], Any]:
    """Return the option of a command that only tells what it would do; *text* is its help."""
    return option("--dryrun", "dry_run", is_flag=True, section=OUTPUT, help=text)


verbose_option = option(
    "--verbose", is_flag=True, section=OUTPUT, help="Show the log of the embedded workers."
)
