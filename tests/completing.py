"""What TAB offers for a command line, and a store whose snapshots it offers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from snapferry.orchestrator.cli.completion.shells import VARIABLE, Bash, Fish, Shell, Zsh
from snapferry.orchestrator.cli.group import cli
from snapferry.stores.address import manifest_key, parse_snapshot_id

SHELLS: dict[str, type[Shell]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


class Offered(NamedTuple):
    """A line of an answer."""

    kind: str
    value: str
    help: str


def lines(answer: str) -> list[Offered]:
    """Return the lines of an *answer*, without empty ones."""
    return [Offered(*line.split("\t")) for line in answer.splitlines() if line]


def variables(line: str, word: str | None = None) -> dict[str, str]:
    """Return what a script sets for the command *line* up to the cursor; *word* is the part that bash replaces."""
    return {"_SNAPFERRY_LINE": line} | ({} if word is None else {"_SNAPFERRY_WORD": word})


def offered(line: str, word: str | None = None, shell: str = "bash") -> list[Offered]:
    """Return what a shell is offered for *line*, asked in this process: an error is raised."""
    with patch.dict(os.environ, variables(line, word)):
        asked = SHELLS[shell](cli, {}, "snapferry", VARIABLE)
        found = asked.get_completions(*asked.get_completion_args())
        return lines("\n".join(map(asked.format_completion, found)))


def values(line: str, word: str | None = None, shell: str = "bash") -> list[str]:
    """Return the values that `offered` returns."""
    return [found.value for found in offered(line, word, shell)]


def listed_store(root: Path, ids: Iterable[str], names: Mapping[str, str] | None = None) -> Path:
    """Make a store in *root* that lists snapshots of these *ids* and has *names*; no manifest can be read."""
    for snapshot_id in ids:
        manifest = root / manifest_key(parse_snapshot_id(snapshot_id))
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text("not a manifest\n")
    for name, snapshot_id in (names or {}).items():
        (root / ".names").mkdir(exist_ok=True)
        (root / ".names" / name).write_text(f"{snapshot_id}\n")
    return root
