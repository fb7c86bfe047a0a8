"""The options of sync, plan and submit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from .common import with_options
from .declare import argument, option
from .job import FLEET_OPTIONS, LIMIT_OPTIONS, SNAPSHOTS, dry_run_option, snapshot_options
from .values import Amount, Size, WholeNumber

_Command = TypeVar("_Command", bound=Callable[..., Any])

STORES: Final = "Stores"
DELETION: Final = "Deletion"
BUDGET: Final = "Budget"

_OPTIONS: Final = (
    argument("first", metavar="[FROM]", required=False, text="Source store, instead of --from."),
    argument("second", metavar="[TO]", required=False, text="Destination store, instead of --to."),
    option(
        "--from",
        "source",
        metavar="STORE",
        envvar="SNAPDIR_STORE",
        section=STORES,
        help="Source store: a URL, a path, or a name from snapferry.toml.",
    ),
    option(
        "--to",
        "destination",
        metavar="STORE",
        section=STORES,
        help="Destination store: a URL, a path, or a name from snapferry.toml.",
    ),
    option(
        "--from-objects",
        metavar="STORE",
        section=STORES,
        help="Store that holds the source's objects, if it is not the source itself.",
    ),
    option(
        "--to-objects",
        metavar="STORE",
        section=STORES,
        help="Store that receives the objects, if it is not the destination itself.",
    ),
    *snapshot_options("copy", "the source"),
    option(
        "--allow-empty-source",
        is_flag=True,
        section=SNAPSHOTS,
        help="With --all, accept a source without snapshots. Without this option that is an error, because the URL may"
        " be wrong or a mount missing.",
    ),
    option(
        "--order",
        type=click.Choice(["newest", "smallest", "given"]),
        metavar="ORDER",
        default_text="given, or newest with --all",
        section=SNAPSHOTS,
        help="Order in which snapshots are published: newest, smallest or given.",
    ),
    option(
        "--trust-manifest",
        is_flag=True,
        section=SNAPSHOTS,
        help="Skip snapshots whose manifest the destination has, without checking their objects.",
    ),
    option(
        "--checksum",
        is_flag=True,
        section=SNAPSHOTS,
        help="Read the objects that the destination has, and replace wrong ones. Without this option, presence and"
        " length count. The destination keeps wrong bytes below .quarantine/.",
    ),
    option(
        "--server-side",
        is_flag=True,
        section=STORES,
        help="Let the S3 server of both stores copy the bytes. Workers only read and verify them. Both stores need the"
        " same endpoint and credentials. What the server does not copy is sent.",
    ),
    option(
        "--names",
        is_flag=True,
        section=SNAPSHOTS,
        help="After the copy, give the source's names to the same snapshots at the destination. With --delete, also"
        " remove names that came from this source and that it no longer has.",
    ),
    option(
        "--delete",
        is_flag=True,
        section=DELETION,
        help="After the copy, delete manifests from the destination that the source does not have. Objects are never"
        " deleted.",
    ),
    option(
        "--max-delete",
        type=WholeNumber(0),
        metavar="N",
        section=DELETION,
        help="Abort without deleting if more than N manifests would be deleted.",
    ),
    option(
        "--force-delete",
        "force",
        is_flag=True,
        section=DELETION,
        help="Delete even if the source has no snapshots at all.",
    ),
    option(
        "--max-bytes",
        type=Size(),
        metavar="SIZE",
        section=BUDGET,
        help="Do not start a job that would copy more than SIZE, such as 20GB or 1.5TiB; stop it if it does.",
    ),
    option(
        "--max-objects",
        type=WholeNumber(0),
        metavar="N",
        section=BUDGET,
        help="Do not start a job that would copy more than N objects; stop it if it does.",
    ),
    option(
        "--max-cost",
        type=Amount(),
        metavar="AMOUNT",
        section=BUDGET,
        help="Do not start a job that would cost more than AMOUNT; stop it if it does. Requires --prices.",
    ),
    option(
        "--prices",
        metavar="FILE",
        envvar="SNAPFERRY_PRICES",
        section=BUDGET,
        help="Price table (TOML) for the estimated cost.",
    ),
    *LIMIT_OPTIONS,
    *FLEET_OPTIONS,
)


copy_dry_run_option = dry_run_option("Show what would be copied and cost, without copying.")


def copy_options(command: _Command) -> _Command:
    """
    Give *command* the options of a copy.

    An option of a job has the name of its field in `JobSpec`, or in the `Limits`, `Budget` or `Prune` of that.
    """
    return with_options(_OPTIONS)(command)
