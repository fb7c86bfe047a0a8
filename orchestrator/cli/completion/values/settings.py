"""The settings of a command line that is not complete."""

from __future__ import annotations

import click

from snapferry.workers.settings.environment import Settings


def settings_of(ctx: click.Context) -> Settings:
    """Return the settings of the command line so far. Raises `InvalidSettings`."""
    return Settings.from_environment(broker_url=ctx.params.get("broker"), config=ctx.params.get("config"))
