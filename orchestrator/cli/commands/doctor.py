"""The command that checks a fleet and stores: doctor."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options import places
from snapferry.orchestrator.cli.options.common import broker_option, json_option
from snapferry.orchestrator.cli.options.declare import argument, command, option

STORES: Final = "Stores"

EXAMPLES: Final = """
Examples:

\b
  Check what a copy needs, on this machine or on the fleet:
    snapferry doctor --id 8b1f... --from file:///srv/store --to s3://backup/store

\b
  Check a fleet, and the stores of mirrors and scrubs:
    snapferry doctor --broker redis://queue:6379/0

\b
Exit codes:
  0    no error; there may be warnings
  1    an error was found
  2    bad usage or configuration
  130  interrupted
"""


@command(run="doctor:doctor", places=places.of_doctor, epilog=EXAMPLES)
@argument("first", metavar="[FROM]", required=False, text="Source store, instead of --from.")
@argument("second", metavar="[TO]", required=False, text="Destination store, instead of --to.")
@option(
    "--from",
    "source",
    metavar="STORE",
    section=STORES,
    help="Check that this source is readable: a URL, a path, or a name from snapferry.toml.",
)
@option(
    "--to",
    "destination",
    metavar="STORE",
    section=STORES,
    help="Check that this destination is writable: a URL, a path, or a name from snapferry.toml.",
)
@option(
    "--from-objects",
    metavar="STORE",
    section=STORES,
    help="Store that holds the source's objects, if it is not the source itself.",
)
@option(
    "--to-objects",
    metavar="STORE",
    section=STORES,
    help="Store that receives the objects, if it is not the destination itself.",
)
@option(
    "--id",
    "snapshot_ids",
    multiple=True,
    metavar="ID",
    section=STORES,
    help="Check that the source has this snapshot, and that the destination has room for it. Given as for sync; may be"
    " repeated.",
)
@json_option
@broker_option
def doctor() -> None:
    """
    Check a fleet and stores for problems.

    Each result is ok, a note, a warning or an error, with advice. The checks
    change nothing and leave nothing behind. Without a store, the fleet is
    checked, and the stores of the mirrors and scrubs in snapferry.toml.
    """
