"""
Random faults on a real fleet: `python -m tests.chaos --seed N --minutes M`, or `make chaos`.

The seed decides everything that is done: which roles there are, which jobs are submitted, which faults happen and
when. After each round the faults stop, every job must end, and an oracle checks the fleet, the ledger and the stores.
Exit code 1 for any violation.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from snapferry.orchestrator.jobs import Jobs

from .faults import FAULTS
from .report import Document, document, summary, write
from .rounds import Result, kept_running, run_round
from .schedule import rounds
from .world import Violation, world

Found = Callable[[list[Result], list[Violation]], None]


def run(folder: Path, seed: int, minutes: float, kinds: list[str] | None, note: Found) -> list[Violation]:
    """Run rounds for so many *minutes*; return all violations. *note* is called after each round."""
    results: list[Result] = []
    violations: list[Violation] = []
    until = float("inf")
    # Rounds with and without sentinels need another Redis, and so another fleet.
    for part, (sentinels, planned_rounds) in enumerate(
        groupby(rounds(seed, kinds=kinds), key=lambda planned: planned.sentinels)
    ):
        (folder / f"{part}").mkdir()
        with world(folder / f"{part}", seed, sentinels=sentinels) as made, kept_running(made):
            # The time until the first fleet is ready does not count.
            until = min(until, time.monotonic() + minutes * 60)
            watched = Jobs(made.settings, check=False, answer_s=3)
            names = " ".join(role.name for role in made.roles)
            print(f"{names}, Redis {'with sentinels' if sentinels else 'alone'}", flush=True)
            for planned in planned_rounds:
                left_s = until - time.monotonic()
                if left_s < 0:
                    break
                print(f"round {planned.number}, {left_s / 60:.1f} minutes left", flush=True)
                results.append(run_round(made, planned, watched))
                last = results[-1]
                print(
                    f"  {dict(last.jobs)}, all ended {last.settled_s:.1f} s after the last fault", flush=True
                )
                note(results, [*violations, *made.violations])
            violations += made.violations
        # Before the next part is looked for: with faults of some kinds, all rounds are alike.
        if time.monotonic() > until:
            break
    return violations


def main() -> int:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=int(time.time()), help="decides jobs and faults")
    options.add_argument("--minutes", type=float, default=30, help="no round begins after so many minutes")
    options.add_argument("--faults", metavar="TEXT", help="only faults whose kind contains this text")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the results as a JSON document")
    options.add_argument("--list", action="store_true", help="print the kinds of faults")
    given = options.parse_args()
    if given.list:
        print("\n".join(f"{fault.family:10} {kind}" for kind, fault in FAULTS.items()))
        return 0
    kinds = [kind for kind in FAULTS if (given.faults or "").lower() in kind.lower()]
    if not kinds:
        options.error(f"no fault has {given.faults!r} in its kind; see --list")
    # A run that is told to end leaves no process and no mount behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="snapferry-chaos-"))
    print(f"seed {given.seed}, logs in {folder}", flush=True)
    began_at = time.monotonic()
    documents: list[Document] = []

    def note(results: list[Result], violations: list[Violation]) -> None:
        # After each round, so that a run that is ended early has results.
        documents[:] = [document(given.seed, (time.monotonic() - began_at) / 60, results, violations)]
        if given.json:
            write(given.json, documents[0])

    violations = run(folder, given.seed, given.minutes, kinds, note)
    print("\n".join(map(summary, documents)))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
