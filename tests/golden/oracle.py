"""
The real snapdir, the oracle of the store format, each call in a process of its own.

snapdir can crash at interpreter exit, after its work is done. So the answer
goes through a file that gets its name only when it is whole: an answer that is
there counts, however the process ended after it.

    Oracle(cache).push(tree, "file:///srv/store") -> snapshot id
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60.0


class Refused(Exception):
    """snapdir raised an error; the text holds its class and its words."""


@dataclass(frozen=True)
class Oracle:
    """
    snapdir with its *cache* in a folder of the test; *environment* is what it needs to reach S3.

    Stores are URLs, trees are paths. Every method raises `Refused` when snapdir
    raises an error, and `AssertionError` when it ends without any answer.
    """

    cache: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def push(self, tree: Path, store: str) -> str:
        """File *tree* in *store*; return the snapshot id."""
        return str(self._ask("push", str(tree), store))

    def pull(self, snapshot: str, store: str, tree: Path) -> None:
        """Make *tree* from a snapshot."""
        self._ask("pull", snapshot, store, str(tree))

    def sync(self, snapshot: str, source: str, destination: str) -> None:
        """Copy a snapshot between stores."""
        self._ask("sync", snapshot, source, destination)

    def verify(self, snapshot: str, store: str) -> bool:
        """Read and hash a snapshot's manifest and objects."""
        return bool(self._ask("verify", snapshot, store))

    def id(self, tree: Path) -> str:
        """Return the snapshot id of *tree*, storing nothing."""
        return str(self._ask("id", str(tree)))

    def manifest(self, tree: Path) -> str:
        """Return the manifest of *tree* as snapdir prints it: without the last line's end."""
        return str(self._ask("manifest", str(tree)))

    def size(self, store: str, snapshot: str | None = None) -> dict[str, int]:
        """Return the size of a store, or of one snapshot."""
        return dict(self._ask("size", store, *([snapshot] if snapshot else [])))

    def diff(self, before: str, after: str) -> list[tuple[str, str]]:
        """Return what differs between all snapshots of two stores: a letter and a path each."""
        return [(status, path) for status, path in self._ask("diff", before, after)]

    def manifests(self, questions: Sequence[tuple[Path, bool, Sequence[str]]]) -> list[str | None]:
        """
        Return the manifests of many trees; None where snapdir refuses one.

        A question is the tree, whether links are left out, and patterns of paths that are left out.
        """
        found: list[str | None] = self._ask(
            "manifests", *([str(tree), no_follow, list(exclude)] for tree, no_follow, exclude in questions)
        )
        return found

    def _ask(self, verb: str, *arguments: Any) -> Any:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SNAPDIR_", "SNAPFERRY_", "AWS_"))
        }
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder, "answer")
            ended = subprocess.run(
                [sys.executable, "-m", "tests.golden.oracle", str(answer), json.dumps([verb, *arguments])],
                env={**kept, **self.environment, "XDG_CACHE_HOME": str(self.cache)},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            assert answer.exists(), (
                f"snapdir gave no answer (exit status {ended.returncode}): {ended.stderr!r}"
            )
            found = json.loads(answer.read_text(encoding="utf-8"))
        if "refused" in found:
            raise Refused(found["refused"])
        return found["value"]


async def _answer(verb: str, arguments: list[Any]) -> Any:
    import snapdir

    async def manifest(tree: str, no_follow: bool, exclude: list[str]) -> str | None:
        try:
            return (await snapdir.manifest(tree, no_follow=no_follow, exclude=exclude)).raw
        except snapdir.SnapdirError:
            return None

    match verb, arguments:
        case "push", [tree, store]:
            return await snapdir.push(tree, snapdir.StoreUri(store))
        case "pull", [snapshot, store, tree]:
            return await snapdir.pull(snapdir.SnapshotId(snapshot), snapdir.StoreUri(store), tree)
        case "sync", [snapshot, source, destination]:
            here, there = snapdir.StoreUri(source), snapdir.StoreUri(destination)
            return await snapdir.sync(snapdir.SnapshotId(snapshot), here, there)
        case "verify", [snapshot, store]:
            return await snapdir.verify(snapdir.SnapshotId(snapshot), snapdir.StoreUri(store))
        case "id", [tree]:
            return await snapdir.id(tree)
        case "manifest", [tree]:
            return (await snapdir.manifest(tree)).raw
        case "size", [store, *snapshot]:
            chosen = [snapdir.SnapshotId(one) for one in snapshot]
            found = await snapdir.size(snapdir.StoreUri(store), *chosen)
            names = ("logical_bytes", "physical_bytes", "files", "objects")
            return {name: getattr(found, name) for name in names}
        case "diff", [before, after]:
            sides = snapdir.DiffOptions.from_refs([before], [after])
            return [(entry.status, entry.path) for entry in await snapdir.diff(sides)]
        case "manifests", questions:
            return [await manifest(*question) for question in questions]
        case _:
            raise ValueError(f"no such question: {verb} {arguments}")


def _main(answer: str, question: str) -> None:
    import snapdir

    verb, *arguments = json.loads(question)
    try:
        found = {"value": asyncio.run(_answer(verb, arguments))}
    except snapdir.SnapdirError as error:
        found = {"refused": f"{type(error).__name__}: {error}"}
    unfinished = Path(answer + ".part")
    unfinished.write_text(json.dumps(found), encoding="utf-8")
    unfinished.rename(answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
