"""The options that every command has, as they were given. This module imports no library but click."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

_KEY: Final = "snapferry.chosen"


def remember(given: Mapping[str, Any]) -> None:
    """Keep the options of every command that were *given* to this one: name -> value."""
    click.get_current_context().meta[_KEY] = {name: value for name, value in given.items() if value}


def chosen() -> dict[str, Any]:
    """Return the options of every command that were given to this one: ``config`` and ``log_level``."""
    ctx = click.get_current_context(silent=True)
    return {} if ctx is None else dict(ctx.meta.get(_KEY, {}))
