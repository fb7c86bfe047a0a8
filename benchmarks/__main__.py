"""``python -m benchmarks``: measure ours beside the peer, and print the table."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from .cases import CASES, QUICK, Case, Setting, TooLittleMemory
from .measure import CommandFailed
from .pairs import Different
from .report import Result, document, machine, table, write_page

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run what the command line asks for; return 0, or 1 if a case could not be measured or the results differ."""
    options = _options()
    if options.list:
        for case in CASES:
            print(f"{case.name:<10}  {case.what}")
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
        except (CommandFailed, Different, TooLittleMemory, OSError, RuntimeError) as error:
            failed = True
            print(f"{case.name} FAILED: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted; everything made for the benchmark is removed", file=sys.stderr)
            return EXIT_INTERRUPTED
    print(f"{table(results)}\n\n{where}")
    if options.json:
        options.json.write_text(json.dumps(document(results, where), indent=2) + "\n", encoding="utf-8")
    if options.write and not failed:
        write_page(results, where)
    return EXIT_FAILED if failed else 0


def _measure(case: Case, options: argparse.Namespace) -> list[Result]:
    print(f"{case.name}: {case.what}", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="snapferry-benchmark-", dir=options.dir))
    try:
        pairs = options.runs or (1 if options.quick else case.pairs)
        return case.measure(Setting(folder, pairs, QUICK if options.quick else 1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    shared_memory = Path("/dev/shm")
    default = shared_memory if shared_memory.is_dir() else Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to run; all if none is named")
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument(
        "--runs", type=int, metavar="N", help="pairs per case, instead of each case's own number"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the data, one pair: does it work at all?"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument(
        "--dir",
        type=Path,
        default=default,
        metavar="DIR",
        help="where the stores are made [default: %(default)s]",
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
