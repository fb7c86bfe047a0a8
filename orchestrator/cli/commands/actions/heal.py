"""The command that replaces wrong and missing objects of a store: heal."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options.common import receipt_option, show_options, with_options
from snapferry.orchestrator.cli.options.declare import argument, command, option
from snapferry.orchestrator.cli.options.job import (
    FLEET_OPTIONS,
    LIMIT_OPTIONS,
    detach_option,
    dry_run_option,
    snapshot_options,
    verbose_option,
)

STORES: Final = "Stores"

EXAMPLES: Final = """
Examples:

\b
  Repair every snapshot of a directory from a bucket, on this machine alone:
    snapferry heal /srv/store --from s3://backup/store --all

\b
  Repair one snapshot from two stores, each of which may have wrong objects too:
    snapferry heal /srv/store --id 8b1f... \\
      --from s3://backup/store --from s3://far/store

\b
  Bring back a snapshot whose manifest is gone; its id must be given in full:
    snapferry heal /srv/store --from s3://backup/store \\
      --id 8b1f2ac07d6e9a8d29d7f0b7b3cfd5a8f4a0f9d3f7ce0a3a9a6cf5c31d1a7e20

\b
  Let a fleet do the work, and print the id of the job:
    snapferry heal --broker redis://queue:6379/0 live --from backup --all --detach

\b
Exit codes:
  0    everything is intact now
  1    something is still wrong, or the receipt could not be written
  2    bad usage or configuration
  130  interrupted
"""

_OPTIONS: Final = (
    option(
        "--from",
        "sources",
        multiple=True,
        required=True,
        metavar="STORE",
        section=STORES,
        help="Store to take intact objects and manifests from: a URL, a path, or a name from snapferry.toml. May be"
        " repeated: the stores are asked in this order.",
    ),
    option(
        "--objects",
        metavar="STORE",
        section=STORES,
        help="Store that holds the objects of STORE, if it is not STORE itself.",
    ),
    option(
        "--from-objects",
        metavar="STORE",
        section=STORES,
        help="Store that holds the objects of the first --from, if it is not that store itself.",
    ),
    *snapshot_options("heal", "the store"),
    *LIMIT_OPTIONS,
    *FLEET_OPTIONS,
    detach_option,
    dry_run_option(
        "Show what would be read, and which objects are missing, without reading any object, and write nothing."
    ),
    receipt_option,
    verbose_option,
)


@command(run="actions.heal:heal", interruptible=True, epilog=EXAMPLES)
@argument("store", metavar="STORE", text="Store to heal: a URL, a path, or a name from snapferry.toml.")
@with_options(_OPTIONS)
@show_options
def heal() -> None:
    """
    Replace wrong and missing objects of a store by intact ones of other stores.

    Every object of the snapshots is read. Intact objects are left alone. A wrong
    or missing one is replaced by verified bytes from the first store that has
    them; the wrong bytes are kept below .quarantine/ of STORE. A manifest that is
    missing or corrupt is written last, after all of its objects.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work.
    """
