"""``python -m benchmarks``: measure ours beside its peers, and print the table."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from .cases import CASES, QUICK, Case, Setting, TooLittleRoom
from .commands import ROOT
from .measure import CommandFailed
from .progress import say
from .report import Result, document, machine, read_document, table, write_page
from .rounds import Different

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run what the command line asks for; return its exit code: 1 if a case could not be measured."""
    options = _options()
    if options.list:
        for case in CASES:
            print(f"{case.name:<12}  {case.what}")
        return 0
    if options.page_of:
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in options.page_of]
        write_page([one for text in documents for one in read_document(text)], documents[-1]["machine"])
        return 0
    chosen = [case for case in CASES if not options.names or case.name in options.names]
    if options.write and (options.quick or len(chosen) < len(CASES)):
        sys.exit("--write takes the results of all cases in full")
    signal.signal(signal.SIGTERM, _interrupt)
    where = machine()
    results: list[Result] = []
    failed = False
    for case in chosen:
        try:
            results += _measure(case, options)
        except _FAILURES as error:
            failed = True
            say(f"{case.name} FAILED: {error}")
        except KeyboardInterrupt:
            say("interrupted; everything made for the benchmark is removed")
            return EXIT_INTERRUPTED
        if options.json:
            # After each case: a run in full takes long, and what is measured should outlive it.
            options.json.write_text(json.dumps(document(results, where), indent=2) + "\n", encoding="utf-8")
    print(f"{table(results)}\n\n{where}")
    if options.write and not failed:
        write_page(results, where)
    return EXIT_FAILED if failed else 0


# A case that cannot be measured stops no other.
_FAILURES = (CommandFailed, Different, TooLittleRoom, OSError, RuntimeError, subprocess.SubprocessError)


def _measure(case: Case, options: argparse.Namespace) -> list[Result]:
    say(f"{case.name}: {case.what}")
    options.disk.mkdir(parents=True, exist_ok=True)
    folder, disk = (
        Path(tempfile.mkdtemp(prefix="snapferry-benchmark-", dir=place))
        for place in (options.dir, options.disk)
    )
    started = time.monotonic()
    try:
        return case.measure(Setting(folder, disk, options.runs, QUICK if options.quick else 1))
    finally:
        for made in (folder, disk):
            shutil.rmtree(made, ignore_errors=True)
        say(f"{case.name}: {time.monotonic() - started:.0f} s")


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    shared_memory = Path("/dev/shm")
    default = shared_memory if shared_memory.is_dir() else Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to run; all if none is named")
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument(
        "--runs", type=int, metavar="N", help="rounds per case, instead of each case's own number"
    )
    parser.add_argument(
        "--quick", action="store_true", help="little of the data, one round: does it work at all?"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument(
        "--write", action="store_true", help="put the table and the plots into docs/benchmarks.md"
    )
    parser.add_argument(
        "--page-of",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing; put what --json wrote to FILE, FILE, ... into docs/benchmarks.md",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=default,
        metavar="DIR",
        help="where the stores are made, best in memory [default: %(default)s]",
    )
    parser.add_argument(
        "--disk",
        type=Path,
        default=ROOT / "build",
        metavar="DIR",
        help="where those stores are made that should be on a disk [default: %(default)s]",
    )
    options = parser.parse_args()
    unknown = set(options.names) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; --list shows them")
    if options.runs is not None and options.runs < 1:
        parser.error("--runs must be 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
