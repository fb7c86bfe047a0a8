"""The options that every command has, as they were given. This module imports no library but click."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from click.core import ParameterSource

_KEY: Final = "snapferry.chosen"


def remember(given: Mapping[str, Any]) -> None:
    """Keep the options of every command that were *given* to this one: name -> value."""
    click.get_current_context().meta[_KEY] = {name: value for name, value in given.items() if value}


def chosen() -> dict[str, Any]:
    """Return the options of every command that were given to this one: ``config`` and ``log_level``."""
    ctx = click.get_current_context(silent=True)
    return {} if ctx is None else dict(ctx.meta.get(_KEY, {}))


def typed(option: str) -> bool:
    """Return whether *option* is on the command line, and not only in the environment."""
    ctx = click.get_current_context()
    names = [parameter.name or "" for parameter in ctx.command.params if option in parameter.opts]
    return any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names)
