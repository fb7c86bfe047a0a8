"""The values that a parameter of a command takes: by what its declaration names, or else by its metavar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import click
from click.shell_completion import CompletionItem

from snapferry.orchestrator.cli.lazy import load

Values = Callable[[click.Context, str], Iterable[CompletionItem]]

# The functions of `values`, imported when they are used, and what only a shell knows.
_VALUES: Final[Mapping[str, str]] = {
    "store": "completion.values.configured:stores",
    "scheduled": "completion.values.configured:scheduled",
    "job": "completion.values.jobs:jobs",
    "snapshot": "completion.values.snapshots:snapshots",
    "reference": "completion.values.snapshots:references",
    "name": "completion.values.snapshots:names",
    "path": "completion.values.paths:paths",
    "queue": "completion.values.queues:queues",
}
# Those that ask Redis or a store.
_ASKING: Final = frozenset({"job", "snapshot", "reference", "name", "path", "queue"})
_OF_SHELL: Final = {"file": "file", "directory": "dir"}

KINDS: Final = frozenset({*_VALUES, *_OF_SHELL})
"""The kinds of values that a declaration may name."""

OF_METAVAR: Final[Mapping[str, str]] = {
    "STORE": "store",
    "FROM": "store",
    "TO": "store",
    "A": "reference",
    "B": "reference",
    "ID": "snapshot",
    "JOB": "job",
    "FILE": "file",
    "DIR": "directory",
}
"""The kind of a parameter whose declaration names none, by its metavar without brackets and dots."""


def kind_of(parameter: click.Parameter) -> str:
    """Return the kind of the values of *parameter*, "" if nothing can be offered."""
    named = str(getattr(parameter, "completes", ""))
    return named or OF_METAVAR.get((parameter.metavar or "").strip("[]."), "")


def values_of(parameter: click.Parameter, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the values of *parameter* that begin with *incomplete*. Raises whatever a store or Redis raises."""
    kind = kind_of(parameter)
    if kind in _OF_SHELL:
        return [CompletionItem(incomplete, _OF_SHELL[kind])]
    if not kind:
        return []
    values: Values = load(_VALUES[kind], quickly=kind in _ASKING)
    return list(values(ctx, incomplete))
