"""The command that looks at the objects of a store: verify."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options.common import (
    receipt_option,
    show_options,
    store_argument,
    with_options,
)
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.options.job import (
    FLEET_OPTIONS,
    LIMIT_OPTIONS,
    SNAPSHOTS,
    detach_option,
    dry_run_option,
    snapshot_options,
    verbose_option,
)
from snapferry.orchestrator.cli.options.values import Duration, Sample, Size

STORES: Final = "Stores"
EXTENT: Final = "Extent"

EXAMPLES: Final = """
Examples:

\b
  Read every object of a store again, on this machine alone:
    snapferry verify s3://backup/store --all

\b
  Look whether all objects of two snapshots are there, with the right length:
    snapferry verify /srv/store --id 8b1f... --id latest --fast

\b
  Read a tenth of the objects, for at most two hours, at 50 MB per second:
    snapferry verify s3://backup/store --all --sample 1/10 \\
      --max-time 2h --limit-rate 50M

\b
  Let a fleet do the work, and print the id of the job:
    snapferry verify --broker redis://queue:6379/0 s3://backup/store --all --detach

\b
Exit codes:
  0    nothing is wrong with what was looked at
  1    something is wrong or missing, or the receipt could not be written
  2    bad usage or configuration
  130  interrupted
"""

_OPTIONS: Final = (
    option(
        "--objects",
        metavar="STORE",
        section=STORES,
        help="Store that holds the objects, if it is not STORE itself.",
    ),
    *snapshot_options("verify", "the store"),
    option(
        "--allow-empty-source",
        is_flag=True,
        section=SNAPSHOTS,
        help="With --all, accept a store without snapshots. Without this option that is an error, because the URL may"
        " be wrong or a mount missing.",
    ),
    option(
        "--fast",
        is_flag=True,
        section=EXTENT,
        help="Look only whether each object is there and has the length that its manifest states. Objects of another"
        " length are read.",
    ),
    option(
        "--sample",
        type=Sample(),
        metavar="1/N",
        section=EXTENT,
        help="Look only at one object in N, chosen by address; each run chooses other ones.",
    ),
    option(
        "--max-bytes",
        type=Size(),
        metavar="SIZE",
        section=EXTENT,
        help="Begin no further batch once SIZE has been read, such as 20GB or 1.5TiB. The rest can be resumed.",
    ),
    option(
        "--max-time",
        type=Duration(),
        metavar="DURATION",
        section=EXTENT,
        help="Begin no further batch after DURATION, such as 90s, 30m or 2h. The rest can be resumed.",
    ),
    *LIMIT_OPTIONS,
    *FLEET_OPTIONS,
    detach_option,
    dry_run_option("Show what would be read and cost, without reading any object."),
    receipt_option,
    verbose_option,
)


@command(run="actions.verify:verify", interruptible=True, epilog=EXAMPLES)
@store_argument
@with_options(_OPTIONS)
@show_options
def verify() -> None:
    """
    Read the objects of a store again, and find damage.

    Each object is read once, however many snapshots share it, and compared with
    its address. Missing, truncated and corrupt objects and manifests are found,
    and listed with the snapshots and paths that need them. Nothing is written to
    the store. On a fleet, snapferry failures lists all of them.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work.
    """
