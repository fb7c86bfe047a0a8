"""Results of the doctor's checks, for a terminal and as JSON."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import click

from snapferry.orchestrator.doctor import CheckResult
from snapferry.orchestrator.reporting.terminal import console, has_colors, has_rich
from snapferry.stores.diagnosis.findings import Finding
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable

COLORS: Final = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}

# A row: level, what the finding is about, the finding, the advice.
Row = tuple[str, str, str, str]


def document(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Return all results as a JSON document (docs/json.md)."""
    counts = Counter(str(result.finding.level) for result in results)
    return {
        "healthy": not counts["error"],
        "counts": {level: counts[level] for level in COLORS},
        "checks": [
            {
                "level": str(result.finding.level),
                "about": result.about,
                "check": result.finding.check,
                "node": result.node or None,
                "said": result.finding.said,
                "advice": result.finding.advice,
            }
            for result in results
        ],
    }


def rows(results: Sequence[CheckResult]) -> list[Row]:
    """
    Return the rows that people read.

    A finding of several nodes is one row; a finding that this machine has too is not repeated for nodes. All that is
    in order at a node is one row.
    """
    local = {(result.about, result.finding) for result in results if not result.node}
    # Findings in the order in which they first appear, each with its nodes.
    nodes_by_finding: dict[tuple[str, Finding], list[str]] = {}
    in_order: Counter[str] = Counter()
    for result in results:
        key = (result.about, result.finding)
        if result.node and (result.finding.level == "ok" or key in local):
            in_order[result.node] += 1
        else:
            nodes_by_finding.setdefault(key, []).append(result.node)
    found = [
        (
            str(finding.level),
            f"{about} from {_some(nodes)}" if any(nodes) else about,
            finding.said,
            finding.advice,
        )
        for (about, finding), nodes in nodes_by_finding.items()
    ]
    for node, count in in_order.items():
        found.append(("ok", f"stores from {node}", f"{counted(count, 'check')} in order, or as above", ""))
    return [
        (level, printable(about), printable(said), printable(advice)) for level, about, said, advice in found
    ]


def print_results(results: Sequence[CheckResult]) -> None:
    """Print all rows and a sum: aligned and coloured on a terminal, plain elsewhere."""
    found = rows(results)
    counts = Counter(level for level, *_ in found)
    total = f"{_number(counts['error'], 'error')}, {_number(counts['warning'], 'warning')}"
    if sys.stdout.isatty() and has_rich():
        _print_rich(found, total)
        return
    colors = has_colors(sys.stdout)
    level_width = max(map(len, COLORS))
    width = max((len(about) for _, about, *_ in found), default=0)
    for level, about, said, advice in found:
        shown = f"{level:<{level_width}}"
        shown = click.style(shown, fg=COLORS[level]) if colors else shown
        click.echo(f"{shown}  {about:<{width}}  {said}", color=colors)
        if advice:
            click.echo(f"{'':{level_width}}  {'':{width}}  -> {advice}")
    click.echo(total)


def _print_rich(found: Sequence[Row], total: str) -> None:
    # As in `console`.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=32)
    table.add_column(overflow="fold")
    for level, about, said, advice in found:
        # A plain string would be read as markup.
        text = Text(said)
        if advice:
            text.append(f"\n→ {advice}", style="bold")
        table.add_row(Text(level, style=COLORS[level]), Text(about), text)
    out = console()
    out.print(table)
    out.print(Text(total))


def _some(names: Sequence[str]) -> str:
    """Return the first two of *names*, and how many more there are."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _number(count: int, what: str) -> str:
    return counted(count, what) if count else f"no {what}s"
