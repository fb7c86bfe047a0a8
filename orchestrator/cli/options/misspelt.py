"""What is meant by a command that does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import click

from snapferry.stores.text.similar import similar

OTHER_WORDS: Final[Mapping[str, str]] = {
    "backup": "push",
    "check": "verify",
    "copy": "sync",
    "cp": "sync",
    "export": "jobs export",
    "help": "--help",
    "import": "jobs import",
    "list": "ls",
    "recover": "jobs recover",
    "repair": "heal",
    "restore": "pull",
    "snapshots": "ls",
    "stop": "cancel",
}
"""Words that other programs have for what a command of snapferry does."""


def no_such_command(ctx: click.Context, name: str, known: Iterable[str]) -> click.UsageError:
    """Return the error about a command *name* of the group of *ctx*, with the one of the *known* that is meant."""
    words = OTHER_WORDS if ctx.parent is None else {}
    meant = words.get(name) or similar(name, [*known, *words])
    meant = words.get(meant, meant)
    question = f" Did you mean {meant!r}?" if meant else ""
    return click.UsageError(f"No such command {name!r}.{question}", ctx)
