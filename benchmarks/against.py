"""
``python -m benchmarks.against REVISION``: measure this tree beside an older one, by turns.

Both run with the packages that are installed now. What they made is compared after
the first round of each case; a difference fails the run.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from . import commands, data
from .cases.buckets import SOURCE, empty, fill, same_buckets
from .cases.case import QUICK, SERVED
from .commands import ROOT
from .measure import Command, CommandFailed
from .progress import say
from .report import Result, machine, spread, timed
from .rounds import OURS, Different, measure_rounds, remove, same_folders, same_trees
from .servers import S3Server

FILES: Final = 20_000
FEW: Final = 10
LARGE_FILES: Final = 8
LARGE_BYTES: Final = 250_000_000
ROUNDS: Final = 5
# A difference of CPU times that is smaller in any round says nothing.
NOISE: Final = 0.02

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

# A command of ours, without what finds its code and stores.
Arguments = Sequence[str]


@dataclass(frozen=True)
class Trees:
    """Two trees of sources: this one, and the *older* one at a path, called *name* in the table."""

    name: str
    older: Path

    @property
    def sides(self) -> tuple[str, str]:
        """The names of both sides."""
        return OURS, self.name

    def commands(
        self, arguments: Mapping[str, Arguments], more: Mapping[str, str] | None = None
    ) -> dict[str, Command]:
        """Return the command of each side, which runs the *arguments* of that side."""
        sources = {OURS: ROOT, self.name: self.older}
        return {
            side: commands.ours(
                # Without PYTHONSAFEPATH, the working directory would come before PYTHONPATH.
                *arguments[side],
                more={**(more or {}), "PYTHONPATH": str(sources[side]), "PYTHONSAFEPATH": "1"},
            )
            for side in self.sides
        }


@dataclass(frozen=True)
class Setting:
    """Two *trees*, an empty *folder* for stores, the number of *rounds*, and what the amount of data is divided by."""

    trees: Trees
    folder: Path
    rounds: int
    scale: int


def start(setting: Setting) -> list[Result]:
    """Copy ten files."""
    snapshot = _store(setting, FEW, 4096)
    return [_copied(setting, snapshot, f"sync of {FEW} files of 4 KiB", FEW)]


def small(setting: Setting) -> list[Result]:
    """Push, copy, verify and pull many small files in directories."""
    files = FILES // setting.scale
    snapshot = _store(setting, files, 4096)
    words = f"{files:,} files of 4 KiB, directories"
    return [
        _pushed(setting, f"push of {words}", files),
        _copied(setting, snapshot, f"sync of {words}", files),
        _verified(setting, snapshot, f"verify of {words}", files),
        _pulled(setting, snapshot, f"pull of {words}", files),
    ]


def large(setting: Setting) -> list[Result]:
    """Copy, verify and pull large files in directories."""
    size_bytes = LARGE_BYTES // setting.scale
    store = setting.folder / "store"
    snapshot, _ = data.sparse_objects(setting.folder, store, files=LARGE_FILES, size_bytes=size_bytes)
    words = f"{LARGE_FILES} files of {size_bytes / 1e6:g} MB, directories"
    return [
        _copied(setting, snapshot, f"sync of {words}", LARGE_FILES),
        _verified(setting, snapshot, f"verify of {words}", LARGE_FILES),
        _pulled(setting, snapshot, f"pull of {words}", LARGE_FILES),
    ]


def s3(setting: Setting) -> list[Result]:
    """Copy many small files between buckets, and verify them in one."""
    files = FILES // setting.scale
    snapshot = _store(setting, files, 4096)
    words = f"{files:,} files of 4 KiB, S3 without latency"
    # Names of buckets have no characters that a revision may have.
    buckets = dict(zip(setting.trees.sides, ("ours", "older"), strict=True))
    with S3Server(":memory:", setting.folder / "server.log") as server:
        copied = measure_rounds(
            setting.rounds,
            setting.trees.commands(
                {
                    side: ("sync", f"s3://{SOURCE}", f"s3://{bucket}", "--id", snapshot)
                    for side, bucket in buckets.items()
                },
                server.environment,
            ),
            clean=lambda: fill(server, setting.folder / "store", buckets.values()),
            check=lambda: same_buckets(server, *buckets.values()),
            by_turns=True,
        )
        arguments = ("verify", f"s3://{SOURCE}", "--id", snapshot)
        verified = measure_rounds(
            setting.rounds,
            setting.trees.commands(dict.fromkeys(setting.trees.sides, arguments), server.environment),
            by_turns=True,
        )
        pushed = measure_rounds(
            setting.rounds,
            setting.trees.commands(
                {
                    side: ("push", str(_tree(setting, files)), "--to", f"s3://{bucket}")
                    for side, bucket in buckets.items()
                },
                server.environment,
            ),
            clean=lambda: empty(server, buckets.values()),
            check=lambda: same_buckets(server, *buckets.values()),
            by_turns=True,
        )
    return [
        timed(f"sync of {words}", copied, others_are=SERVED, objects=files),
        timed(f"verify of {words}", verified, others_are=SERVED, objects=files),
        timed(f"push of {words}", pushed, others_are=SERVED, objects=files),
    ]


CASES: Final[Mapping[str, Callable[[Setting], list[Result]]]] = {
    "start": start,
    "small": small,
    "large": large,
    "s3": s3,
}


def _store(setting: Setting, files: int, size_bytes: int) -> str:
    return data.pushed_store(setting.folder, setting.folder / "store", files=files, size_bytes=size_bytes)


def _tree(setting: Setting, files: int) -> Path:
    tree = setting.folder / "files"
    if not tree.exists():
        data.make_tree(tree, files=files, size_bytes=4096)
    return tree


def _pushed(setting: Setting, words: str, files: int) -> Result:
    tree = _tree(setting, files)
    return _made(setting, words, files, lambda store: ("push", str(tree), "--to", store), same_folders)


def _copied(setting: Setting, snapshot: str, words: str, objects: int) -> Result:
    source = str(setting.folder / "store")
    return _made(
        setting, words, objects, lambda store: ("sync", source, store, "--id", snapshot), same_folders
    )


def _pulled(setting: Setting, snapshot: str, words: str, objects: int) -> Result:
    source = str(setting.folder / "store")
    return _made(
        setting, words, objects, lambda tree: ("pull", "--from", source, "--id", snapshot, tree), same_trees
    )


def _made(
    setting: Setting,
    words: str,
    objects: int,
    arguments: Callable[[str], Arguments],
    same: Callable[[Path, Path], None],
) -> Result:
    """Return the line for commands that make a directory, which must be the same for both sides."""
    made = dict(zip(setting.trees.sides, (setting.folder / "made-1", setting.folder / "made-2"), strict=True))
    rounds = measure_rounds(
        setting.rounds,
        setting.trees.commands({side: arguments(str(folder)) for side, folder in made.items()}),
        clean=lambda: remove(*made.values()),
        check=lambda: same(*made.values()),
        by_turns=True,
    )
    remove(*made.values())
    return timed(words, rounds, objects=objects)


def _verified(setting: Setting, snapshot: str, words: str, objects: int) -> Result:
    arguments = ("verify", str(setting.folder / "store"), "--id", snapshot)
    rounds = measure_rounds(
        setting.rounds,
        setting.trees.commands(dict.fromkeys(setting.trees.sides, arguments)),
        by_turns=True,
    )
    return timed(words, rounds, objects=objects)


def table(results: Sequence[Result], older: str) -> str:
    """Return the Markdown table: times, and the ratios of this tree to the *older* one, of times and of CPU times."""
    lines = [
        f"| work | now | {older} | ratio of times [min-max] | ratio of CPU times [min-max] | now it is |",
        "| --- | ---: | ---: | --- | --- | --- |",
    ]
    for result in results:
        cpu = [
            sum(now) / sum(before) for now, before in zip(result.cpu[OURS], result.cpu[older], strict=True)
        ]
        cells = [
            result.work,
            f"{median(result.ours):.2f} s",
            f"{median(result.peers[older]):.2f} s",
            spread(result.ratios(older)),
            spread(cpu),
            verdict(cpu),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(ratios: Sequence[float]) -> str:
    """Return "slower" or "faster" where every round says so, by more than `NOISE`, and "the same" otherwise."""
    if min(ratios) > 1 + NOISE:
        return "**slower**"
    return "faster" if max(ratios) < 1 - NOISE else "the same"


class UnknownRevision(Exception):
    """Git knows no such revision of this repository."""


def unpack(revision: str, folder: Path) -> str:
    """
    Put the tree of *revision* into *folder*; return the short name of its commit.

    Raises `UnknownRevision`.
    """
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--verify", "--quiet", "--short", "--end-of-options", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    name = found.stdout.strip()
    if found.returncode != 0 or not name:
        raise UnknownRevision(f"git knows no revision {revision!r} in {ROOT}")
    archive = folder.with_suffix(".tar")
    try:
        subprocess.run([*git, "archive", "--format=tar", f"--output={archive}", name], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        # Python 3.11 before 3.11.4 cannot extract with a filter, and later ones warn without one.
        subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
    finally:
        archive.unlink(missing_ok=True)
    return name


def main() -> int:
    """Run what the command line asks for; return 0, 1 if a case failed, or 2 for a wrong command line."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    where = machine()
    results: list[Result] = []
    failed = False
    with ExitStack() as stack:
        code = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapferry-older-")))
        try:
            name = unpack(options.revision, code / "tree")
            trees = Trees(name, code / "tree")
            for case in options.cases or CASES:
                with tempfile.TemporaryDirectory(prefix="snapferry-against-", dir=options.dir) as folder:
                    say(f"{case}: {(CASES[case].__doc__ or '').strip()}")
                    try:
                        results += CASES[case](
                            Setting(
                                trees,
                                Path(folder),
                                options.runs or (1 if options.quick else ROUNDS),
                                QUICK if options.quick else 1,
                            )
                        )
                    except (CommandFailed, Different, OSError, subprocess.SubprocessError) as error:
                        failed = True
                        say(f"{case} FAILED: {error}")
        except UnknownRevision as error:
            say(str(error))
            return EXIT_USAGE
        except KeyboardInterrupt:
            say("interrupted; everything made for the benchmark is removed")
            return EXIT_INTERRUPTED
    print(f"{table(results, name)}\n\n{where}")
    return EXIT_FAILED if failed else 0


def _options() -> argparse.Namespace:
    shared_memory = Path("/dev/shm")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument(
        "revision", metavar="REVISION", help="an older commit, tag or branch of this repository"
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all if none is named")
    parser.add_argument("--runs", type=int, metavar="N", help=f"rounds per case [default: {ROUNDS}]")
    parser.add_argument("--quick", action="store_true", help="little of the data, one round")
    parser.add_argument(
        "--dir",
        type=Path,
        default=shared_memory if shared_memory.is_dir() else Path(tempfile.gettempdir()),
        metavar="DIR",
        help="where the stores are made, best in memory [default: %(default)s]",
    )
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.runs is not None and options.runs < 1:
        parser.error("--runs must be 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
