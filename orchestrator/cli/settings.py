"""The settings of a command: the environment, overridden by its options."""

from __future__ import annotations

from typing import Any

from snapferry.workers.settings.directory_rules import apply_to_directories
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .exit_codes import usage


def read_settings(broker: str | None, prices: str | None = None, **overrides: Any) -> Settings:
    """Return the settings of the environment; options of the command line override it."""
    try:
        settings = Settings.from_environment(broker_url=broker, prices=prices, **overrides)
    except InvalidSettings as error:
        usage(str(error))
    apply_to_directories(settings)
    return settings
