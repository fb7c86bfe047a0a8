"""Stores that a command takes as arguments or as options. This module imports no library but click."""

from __future__ import annotations

from collections.abc import MutableMapping
from shlex import quote
from typing import Any, NoReturn

import click

from snapferry.orchestrator.cli.chosen import typed
from snapferry.orchestrator.cli.exit_codes import usage

Given = MutableMapping[str, Any]


def of_copy(given: Given) -> None:
    """Replace the arguments *first* and *second* by the options *source* and *destination*, which then are set."""
    places = _two(given.pop("first"), given.pop("second"), given["source"], given["destination"])
    given["source"], given["destination"] = places


def of_diff(given: Given) -> None:
    """As `of_copy`, for the arguments A and B."""
    places = [given[name] for name in ("first", "second", "source", "destination") if given[name] is not None]
    if len(places) < 2:
        of_snapshot = places and "@" in places[0] and "/" not in places[0].rpartition("@")[2]
        example = "@latest" if of_snapshot or not places else "s3://backup/store"
        command = f"snapferry diff {quote(places[0]) if places else '/srv/store@8b1f92'} {example}"
        missing = "A and B are" if not places else "A is" if given["destination"] is not None else "B is"
        usage(f"{missing} missing: give two snapshots, or two stores. For example: {command}")
    of_copy(given)


def of_push(given: Given) -> None:
    """Replace the argument *place* by the option *destination*, which then is set."""
    given["destination"] = _one("--to", given.pop("place"), given["destination"])


def of_pull(given: Given) -> None:
    """Replace the arguments *first* and *second* by *path* and by the option *source*, which then are set."""
    first, second = given.pop("first"), given.pop("second")
    place, path = (first, second) if second is not None else (None, first)
    if path is None:
        usage("no directory is given. Use: snapferry pull FROM PATH --id ID")
    given["source"], given["path"] = _one("--from", place, given["source"]), path


def of_doctor(given: Given) -> None:
    """Replace the arguments *first* and *second* by the options *source* and *destination*, if there are any."""
    first, second = given.pop("first"), given.pop("second")
    if second is not None:
        given["source"], given["destination"] = _two(first, second, given["source"], given["destination"])
    elif first is not None:
        given["source"] = _one("--from", first, given["source"])


def _one(option: str, argument: str | None, value: str | None) -> str:
    """
    Return the store that is given as *argument* or as the *value* of an *option*, such as ``--from``.

    An argument is stronger than the option's environment variable. None of both, or both, end the command.
    """
    if argument is not None:
        if value is not None and typed(option):
            usage(f"the store is given twice: as the argument {argument} and as {option} {value}")
        return argument
    if value is None:
        _missing(option)
    return value


def _two(
    first: str | None, second: str | None, source: str | None, destination: str | None
) -> tuple[str, str]:
    """
    Return the source and the destination of a copy, from its arguments FROM and TO, and from ``--from`` and ``--to``.

    A single argument is the store that no option gives. Any contradiction ends the command.
    """
    if first is not None and second is None and not typed("--to") and (typed("--from") or source is not None):
        first, second = None, first
    return _one("--from", first, source), _one("--to", second, destination)


def _missing(option: str) -> NoReturn:
    ctx = click.get_current_context()
    arguments = " ".join(
        parameter.make_metavar(ctx) for parameter in ctx.command.params if _is_argument(parameter)
    )
    name = "destination" if option == "--to" else "source"
    # An optional argument is in brackets.
    command = f"{ctx.command_path} {arguments}".translate({ord("["): None, ord("]"): None})
    usage(f"no {name} is given. Use {option} STORE, or: {command}")


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)
