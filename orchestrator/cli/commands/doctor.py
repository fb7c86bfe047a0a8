"""The command that checks a fleet and stores: doctor."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import click
from rich.console import Console

from snapferry.orchestrator.cli.doctor_report import document, print_results
from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, interrupt_on_sigterm, usage
from snapferry.orchestrator.cli.options.common import broker_option, json_option
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.doctor import examine, worst
from snapferry.orchestrator.jobs import store_pair
from snapferry.stores.address import parse_address
from snapferry.stores.errors import InvalidAddress, InvalidStoreURL
from snapferry.stores.urls import parse_url
from snapferry.workers.diagnosis.store_check import Check, Side
from snapferry.workers.settings.environment import InvalidSettings, store_options

STORES: Final = "Stores"

EXAMPLES: Final = """
Examples:

\b
  Check what a copy needs, on this machine or on the fleet:
    snapferry doctor --id 8b1f... --from file:///srv/store --to s3://backup/store

\b
  Check a fleet:
    snapferry doctor --broker redis://queue:6379/0

\b
Exit codes:
  0    no error; there may be warnings
  1    an error was found
  2    bad usage or configuration
  130  interrupted
"""


@command(epilog=EXAMPLES)
@option("--from", "source", metavar="URL", section=STORES, help="Check that this source is readable.")
@option("--to", "destination", metavar="URL", section=STORES, help="Check that this destination is writable.")
@option(
    "--from-objects",
    metavar="URL",
    section=STORES,
    help="Store that holds the source's objects, if it is not the source itself.",
)
@option(
    "--to-objects",
    metavar="URL",
    section=STORES,
    help="Store that receives the objects, if it is not the destination itself.",
)
@option(
    "--id",
    "snapshot_ids",
    multiple=True,
    metavar="ID",
    section=STORES,
    help="Check that the source has this snapshot, and that the destination has room for it. May be repeated.",
)
@json_option
@broker_option
def doctor(
    source: str | None,
    destination: str | None,
    from_objects: str | None,
    to_objects: str | None,
    snapshot_ids: tuple[str, ...],
    as_json: bool,
    broker: str | None,
) -> int:
    """
    Check a fleet and stores for problems.

    Each result is ok, a note, a warning or an error, with advice. The checks
    change nothing and leave nothing behind. Without --from and --to only the
    fleet is checked.
    """
    interrupt_on_sigterm()
    settings = read_settings(broker)
    check = _check(source, destination, from_objects, to_objects, snapshot_ids)
    try:
        with _activity(as_json):
            results = examine(settings, check)
    except InvalidSettings as error:
        usage(str(error))
    if as_json:
        click.echo(json.dumps(document(results), indent=2))
    else:
        print_results(results)
    return EXIT_FAILED if worst(results) == "error" else 0


def _check(
    source: str | None,
    destination: str | None,
    from_objects: str | None,
    to_objects: str | None,
    snapshot_ids: tuple[str, ...],
) -> Check:
    if snapshot_ids and not source:
        usage("--id requires --from")
    for objects, store, name in ((from_objects, source, "from"), (to_objects, destination, "to")):
        if objects and not store:
            usage(f"--{name}-objects requires --{name}")
    try:
        if source and destination:
            store_pair(source, destination, from_objects, to_objects)
        return Check(
            _side(source, from_objects, "from"),
            _side(destination, to_objects, "to"),
            tuple(parse_address(snapshot_id) for snapshot_id in snapshot_ids),
        )
    except (InvalidStoreURL, InvalidAddress) as error:
        usage(str(error))


def _side(url: str | None, objects: str | None, name: Any) -> Side | None:
    if url is None:
        return None
    options = store_options(name)
    complete = str(parse_url(url).with_defaults(**options))
    return Side(complete, str(parse_url(objects).with_defaults(**options)) if objects else None)


def _activity(as_json: bool) -> AbstractContextManager[Any]:
    """Return a context that shows on a terminal that the checks are running."""
    if as_json or not sys.stderr.isatty():
        return nullcontext()
    return Console(stderr=True).status("checking")
