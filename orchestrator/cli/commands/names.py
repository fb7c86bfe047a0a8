"""The commands that name snapshots: tag and untag."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options.common import json_option, store_argument
from snapferry.orchestrator.cli.options.declare import argument, command, option

EXAMPLES: Final = """
Examples:

\b
  Name a snapshot, and copy it by its name:
    snapferry tag s3://backup/store 8b1f92 nightly
    snapferry sync --id nightly@ --from s3://backup/store --to /srv/store

\b
  Move the name to the newest snapshot, if it still is that of 8b1f92:
    snapferry tag s3://backup/store latest nightly --if-was 8b1f92

\b
  List the names, and remove one:
    snapferry tag s3://backup/store
    snapferry untag s3://backup/store nightly

\b
Exit codes:
  0    done
  1    the store refused or failed, or --if-was did not match
  2    bad usage; no such snapshot or name
"""

UNTAG_EXAMPLES: Final = """
\b
Example:
  snapferry untag s3://backup/store nightly
"""


@command(run="names:tag", epilog=EXAMPLES)
@store_argument
@argument(
    "snapshot",
    metavar="[ID]",
    required=False,
    text="Snapshot to name: its id, the first digits of its id, NAME@ or latest.",
)
@argument(
    "name",
    metavar="[NAME]",
    required=False,
    completes="name",
    text="Name: lowercase letters, digits, '.', '_' and '-'.",
)
@option(
    "--if-was",
    metavar="ID",
    help="Write the name only if the snapshot ID has it at that moment; with none, only if the name does not exist."
    " A message says so if the store cannot keep other writers away.",
)
@option(
    "--delete",
    "deleted",
    metavar="NAME",
    completes="name",
    help="Remove the name NAME; the same as snapferry untag.",
)
@json_option
def tag() -> None:
    """
    Name a snapshot, or list the names of a store.

    A name is kept in its store. Wherever a snapshot id is expected, NAME@ means the
    snapshot that has the name. Tagging with a name that exists moves the name.
    """


@command(run="names:untag", epilog=UNTAG_EXAMPLES)
@store_argument
@argument("name", metavar="NAME", completes="name", text="Name to remove.")
@option(
    "--if-was",
    metavar="ID",
    help="Remove the name only if the snapshot ID has it now."
    " A message says so if the store cannot keep other writers away.",
)
@json_option
def untag() -> None:
    """Remove a name from a store. The snapshot stays."""
