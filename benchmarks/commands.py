"""The command lines of both sides, with an environment that holds nothing of the caller's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .measure import Command

ROOT: Final = Path(__file__).resolve().parent.parent

# `benchmarks.peer` says this; importing it here would import `snapdir` into this process.
PEER_IS_DONE: Final = "peer-is-done"

OURS: Final = "snapferry"

# Without bytecode files, Python compiles the sources at each start. An installed package has bytecode files.
_FOREIGN: Final = ("SNAPFERRY_", "SNAPDIR_", "AWS_", "CELERY_", "PYTHONDONTWRITEBYTECODE")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment, without settings of either side, and with *more*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def ours(*arguments: str, more: Mapping[str, str] | None = None, program: str = OURS) -> Command:
    """Return the command ``snapferry`` *arguments*; *program* is the module that is run."""
    return Command([sys.executable, "-m", program, *arguments], environment(more or {}))


def ours_sync(snapshot: str, source: str, destination: str, more: Mapping[str, str] | None = None) -> Command:
    """Return the command that copies *snapshot* as ours; it prints JSON."""
    return ours("sync", "--from", source, "--to", destination, "--id", snapshot, "--json", more=more)


def ours_sync_all(source: str, destination: str, more: Mapping[str, str] | None = None) -> Command:
    """Return the command that copies every snapshot of *source* as ours."""
    return ours("sync", "--from", source, "--to", destination, "--all", "-q", more=more)


def ours_push(tree: str, store: str, more: Mapping[str, str] | None = None) -> Command:
    """Return the command that pushes *tree* to *store* as ours; it prints JSON."""
    return ours("push", tree, "--to", store, "--json", more=more)


def ours_pull(snapshot: str, store: str, tree: str, more: Mapping[str, str] | None = None) -> Command:
    """Return the command that pulls *snapshot* from *store* to *tree* as ours; it prints JSON."""
    return ours("pull", "--from", store, "--id", snapshot, tree, "--json", more=more)


def ours_verify(snapshot: str, store: str, more: Mapping[str, str] | None = None) -> Command:
    """Return the command that verifies *snapshot* in *store* as ours; it prints JSON."""
    return ours("verify", store, "--id", snapshot, "--json", more=more)


def peer(*arguments: str, cache: Path, more: Mapping[str, str] | None = None) -> Command:
    """Return the command that does *arguments* (see `benchmarks.peer`) with the real package."""
    environ = environment({"XDG_CACHE_HOME": str(cache), **(more or {})})
    return Command([sys.executable, "-m", "benchmarks.peer", *arguments], environ, marker=PEER_IS_DONE)


def ours_on_fleet(
    snapshot: str,
    source: str,
    destination: str,
    *,
    broker: str,
    jobs: int | None = None,
    more: Mapping[str, str],
) -> Command:
    """
    Return the command that has a fleet copy *snapshot*; it prints JSON.

    *jobs* is how many objects are in flight in all, None: as many as the fleet has by itself.
    """
    return ours(
        "sync", "--broker", broker, "--from", source, "--to", destination, "--id", snapshot,
        *([] if jobs is None else ["-j", str(jobs)]), "--json", more=more,
    )  # fmt: skip


def ours_verify_on_fleet(
    snapshot: str, store: str, *, broker: str, jobs: int, more: Mapping[str, str]
) -> Command:
    """Return the command that has a fleet verify *snapshot*, *jobs* objects in flight in all; it prints JSON."""
    return ours("verify", store, "--broker", broker, "--id", snapshot, "-j", str(jobs), "--json", more=more)


def floor(*arguments: str) -> Command:
    """Return the command that does *arguments* of `benchmarks.floor`."""
    return Command([sys.executable, "-m", "benchmarks.floor", *arguments], environment({}))


def large_floor(source: str, destination: str) -> Command:
    """Return the command of `benchmarks.one_object`."""
    return Command([sys.executable, "-m", "benchmarks.one_object", source, destination], environment({}))


def one_sided_floor(*arguments: str) -> Command:
    """Return the command that does *arguments* of `benchmarks.one_sided`."""
    return Command([sys.executable, "-m", "benchmarks.one_sided", *arguments], environment({}))


def direct(*arguments: str, more: Mapping[str, str]) -> Command:
    """Return the command that does *arguments* of `benchmarks.direct`."""
    return Command([sys.executable, "-m", "benchmarks.direct", *arguments], environment(more))
