"""
The results of runs as JSON documents, and the table of docs/reliability.md.

`python -m tests.chaos.report FILE...` writes the table of several runs.
"""

from __future__ import annotations

import argparse
import json
import operator
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from .faults import FAULTS
from .rounds import Result
from .world import Violation

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"

Document = dict[str, Any]

# What a run of 30 minutes must reach: faults, kinds, and the seconds from the end of a fault until jobs move again.
FAULTS_OF_A_RUN: Final = 200
KINDS_OF_A_RUN: Final = 25
MEDIAN_S: Final = 15
LONGEST_S: Final = 90
FULL_MINUTES: Final = 25


def document(
    seed: int, minutes: float, results: Sequence[Result], violations: Iterable[Violation]
) -> Document:
    """Return the results of a run as a JSON document."""
    jobs: Counter[str] = sum((result.jobs for result in results), Counter())
    return {
        "schema": "snapferry.chaos/1",
        "seed": seed,
        "minutes": round(minutes, 1),
        "rounds": len(results),
        "jobs": dict(sorted(jobs.items())),
        "settled_s": [round(result.settled_s, 1) for result in results],
        "faults": [
            {
                "kind": done.planned.kind,
                "round": result.number,
                "possible": done.possible,
                "lasted_s": round(done.ended_at - done.began_at, 1),
                "recovered_s": None if done.recovered_s is None else round(done.recovered_s, 1),
                "jobs": dict(sorted(result.jobs.items())),
            }
            for result in results
            for done in result.done
        ],
        "violations": [violation._asdict() for violation in violations],
    }


def write(path: Path, found: Document) -> None:
    """Write a document to a file."""
    path.write_text(json.dumps(found, indent=1) + "\n")


def _seconds(values: Sequence[float]) -> str:
    return f"{median(values):.0f} s, {max(values):.0f} s" if values else "-"


def _row(kind: str, found: Sequence[Document]) -> str:
    done = [fault for fault in found if fault["possible"]]
    ends: Counter[str] = sum((Counter(fault["jobs"]) for fault in done), Counter())
    shown = [ends[name] for name in ("done", "failed", "cancelled", "lost with Redis")]
    recovered = [fault["recovered_s"] for fault in done if fault["recovered_s"] is not None]
    cells = [kind, len(done), *shown, _seconds(recovered)]
    return "| " + " | ".join(map(str, cells)) + " |"


def _totals(found: Document) -> str:
    done = [fault for fault in found["faults"] if fault["possible"]]
    recovered = [fault["recovered_s"] for fault in done if fault["recovered_s"] is not None]
    cells = [
        found["seed"],
        f"{found['minutes']:.0f}",
        found["rounds"],
        sum(found["jobs"].values()),
        len(done),
        len({fault["kind"] for fault in done}),
        _seconds(recovered),
        _seconds(found["settled_s"]),
        len(found["violations"]),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def table(documents: Sequence[Document]) -> str:
    """Return the runs, the faults by kind, and the faults that were not tried, in Markdown."""
    by_kind: dict[str, list[Document]] = {}
    for found in documents:
        for fault in found["faults"]:
            by_kind.setdefault(fault["kind"], []).append(fault)
    tried = [kind for kind in sorted(FAULTS) if any(fault["possible"] for fault in by_kind.get(kind, ()))]
    missing = [kind for kind in sorted(FAULTS) if kind not in tried]
    lines = [
        "| seed | minutes | rounds | jobs | faults | kinds | jobs move again | all jobs ended | violations |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_totals, documents),
        "",
        "| fault | count | jobs done | failed | cancelled | lost with Redis | jobs move again |",
        "|---|---|---|---|---|---|---|",
        *(_row(kind, by_kind[kind]) for kind in tried),
        "",
        f"Not tried in these runs: {', '.join(missing) or 'none'}.",
    ]
    return "\n".join(lines)


def judgement(found: Document) -> list[str]:
    """Return the figures of a run beside what a run of 30 minutes must reach, one in a line."""
    done = [fault for fault in found["faults"] if fault["possible"]]
    recovered = [fault["recovered_s"] for fault in done if fault["recovered_s"] is not None] or [0.0]
    minutes = found["minutes"] or 1.0
    rows = (
        ("faults in 30 minutes", 30 * len(done) / minutes, ">=", FAULTS_OF_A_RUN),
        ("kinds of faults", len({fault["kind"] for fault in done}), ">=", KINDS_OF_A_RUN),
        ("jobs move again, median", median(recovered), "<=", MEDIAN_S),
        ("jobs move again, longest", max(recovered), "<=", LONGEST_S),
        ("violations", len(found["violations"]), "<=", 0),
    )
    compared = {">=": operator.ge, "<=": operator.le}
    words = {True: "held  ", False: "BROKEN"}
    return [
        f"{words[compared[sign](value, bound)]} {name}: {value:.0f} {sign} {bound}"
        for name, value, sign, bound in rows
    ]


def summary(found: Document) -> str:
    """Return the table of one run, what a long one must reach, and its violations."""
    violations = (f"VIOLATION {one['clause']}: {one['found']}" for one in found["violations"])
    judged = judgement(found) if found["minutes"] >= FULL_MINUTES else []
    return "\n".join([table([found]), "", *judged, *violations])


def main() -> int:
    """Write the table of docs/reliability.md from the documents of runs."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos.report", description=__doc__)
    options.add_argument("documents", nargs="+", type=Path, metavar="FILE")
    given = options.parse_args()
    found = [json.loads(path.read_text()) for path in given.documents]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
