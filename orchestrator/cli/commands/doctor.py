"""The command that looks for what is wrong: doctor."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, interrupt_on_sigterm, read_settings, usage
from snapferry.orchestrator.cli.options import broker_option, json_option
from snapferry.stores.text.printable import printable

if TYPE_CHECKING:
    from snapferry.orchestrator.doctor import Line
    from snapferry.stores.diagnosis.findings import Finding
    from snapferry.workers.diagnosis.store_check import Check, Side

COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}

EXAMPLES = """
Examples:

\b
  What would go wrong with this copy, on this machine or on the fleet?
    snapferry doctor --from file:///srv/store --to s3://backup/store --id 8b1f...

\b
  Is the fleet all right?
    snapferry doctor --broker redis://queue:6379/0

Exit codes: 0 no error (there may be warnings), 1 an error was found, 2 bad usage, 130 interrupted.
"""


@click.command(epilog=EXAMPLES)
@click.option("--from", "source", metavar="URL", help="Source store: is it readable?")
@click.option(
    "--to", "destination", metavar="URL", help="Destination store: does it take what a copy writes?"
)
@click.option(
    "--from-objects", metavar="URL", help="Pool that holds the source's objects, if not --from itself."
)
@click.option("--to-objects", metavar="URL", help="Pool that takes the objects, if not --to itself.")
@click.option(
    "--id",
    "snapshot_ids",
    multiple=True,
    metavar="ID",
    help="Snapshot that the source should have, and that should fit. May be repeated.",
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
    Look for what is wrong with the fleet, and with the stores of a copy.

    Each line is ok, a note, a warning or an error, with what to do about it. Nothing is changed, and nothing is
    left behind. Without --from and --to only the fleet is looked at.
    """
    interrupt_on_sigterm()
    settings = read_settings(broker)
    check = _check(source, destination, from_objects, to_objects, snapshot_ids)
    from snapferry.orchestrator.doctor import examine, worst
    from snapferry.workers.settings.environment import InvalidSettings

    try:
        with _waiting(as_json):
            lines = examine(settings, check)
    except InvalidSettings as error:
        usage(str(error))
    if as_json:
        click.echo(json.dumps(document(lines), indent=2))
    else:
        print_lines(lines)
    return EXIT_FAILED if worst(lines) == "error" else 0


def _check(
    source: str | None,
    destination: str | None,
    from_objects: str | None,
    to_objects: str | None,
    snapshot_ids: tuple[str, ...],
) -> Check:
    from snapferry.orchestrator.jobs import store_pair
    from snapferry.stores.address import parse_address
    from snapferry.stores.errors import InvalidAddress, InvalidStoreURL
    from snapferry.workers.diagnosis.store_check import Check

    if snapshot_ids and not source:
        usage("--id goes with --from: which store should have the snapshot?")
    for pool, of, name in ((from_objects, source, "from"), (to_objects, destination, "to")):
        if pool and not of:
            usage(f"--{name}-objects goes with --{name}")
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


def _side(url: str | None, pool: str | None, name: Any) -> Side | None:
    from snapferry.stores.urls import parse_url
    from snapferry.workers.diagnosis.store_check import Side
    from snapferry.workers.settings.environment import store_options

    if url is None:
        return None
    options = store_options(name)
    there = str(parse_url(url).with_defaults(**options))
    return Side(there, str(parse_url(pool).with_defaults(**options)) if pool else None)


def _waiting(as_json: bool) -> Any:
    """Show that something goes on, where somebody looks."""
    if as_json or not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("looking")


def document(lines: Sequence[Line]) -> dict[str, Any]:
    """Return what was found as a JSON document (docs/json.md)."""
    counts = Counter(str(line.finding.level) for line in lines)
    return {
        "healthy": not counts["error"],
        "counts": {level: counts[level] for level in COLORS},
        "checks": [
            {
                "level": str(line.finding.level),
                "about": line.about,
                "check": line.finding.check,
                "node": line.node or None,
                "said": line.finding.said,
                "advice": line.finding.advice,
            }
            for line in lines
        ],
    }


def brief(lines: Sequence[Line]) -> list[tuple[str, str, str, str]]:
    """
    Return the rows that people read: level, what about, what was said, what to do.

    What several nodes of the fleet found at the stores is one row, and none
    where this machine found the same. What is in order there is one row a node.
    """
    here = {(line.about, line.finding) for line in lines if not line.node}
    # Rows in the order of their first mention, each with the nodes that say it.
    rows: dict[tuple[str, Finding], list[str]] = {}
    fine: Counter[str] = Counter()
    for line in lines:
        said = (line.about, line.finding)
        if line.node and (line.finding.level == "ok" or said in here):
            fine[line.node] += 1
        else:
            rows.setdefault(said, []).append(line.node)
    found = [
        (
            str(finding.level),
            f"{about} from {_some(nodes)}" if any(nodes) else about,
            finding.said,
            finding.advice,
        )
        for (about, finding), nodes in rows.items()
    ]
    for node, count in fine.items():
        found.append(("ok", f"stores from {node}", f"{count} checks as above, or in order", ""))
    return [(level, *map(printable, rest)) for level, *rest in found]  # type: ignore[misc]


def print_lines(lines: Sequence[Line]) -> None:
    """Print all rows and a sum: aligned and coloured on a terminal, plain elsewhere."""
    rows = brief(lines)
    counts = Counter(level for level, *_ in rows)
    total = f"{_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}"
    if sys.stdout.isatty():
        _print_rich(rows, total)
        return
    level_width = max(map(len, COLORS))
    width = max((len(about) for _, about, *_ in rows), default=0)
    for level, about, said, advice in rows:
        click.echo(f"{level:<{level_width}}  {about:<{width}}  {said}")
        if advice:
            click.echo(f"{'':{level_width}}  {'':{width}}  -> {advice}")
    click.echo(total)


def _print_rich(rows: Sequence[tuple[str, str, str, str]], total: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=32)
    table.add_column(overflow="fold")
    for level, about, said, advice in rows:
        # Text, because a string is read as markup.
        what = Text(said)
        if advice:
            what.append(f"\n→ {advice}", style="bold")
        table.add_row(Text(level, style=COLORS[level]), Text(about), what)
    console = Console()
    console.print(table)
    console.print(Text(total))


def _some(names: Sequence[str]) -> str:
    """Return the first two of *names*, and how many more there are."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _count(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'s' * (count != 1)}"
