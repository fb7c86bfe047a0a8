"""The settings of a command: the environment, overridden by its options."""

from __future__ import annotations

from typing import Any

from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.directory_rules import apply_to_directories
from snapferry.workers.settings.environment import InvalidSettings, Settings, misspelt_variables

from .chosen import chosen
from .exit_codes import note, usage


def read_settings(broker: str | None, prices: str | None = None, **overrides: Any) -> Settings:
    """
    Return the settings of the environment; options of the command line override it.

    A variable that is probably misspelt is named on stderr. With --log-level, this also shows the log of this process.
    """
    given = chosen()
    try:
        settings = Settings.from_environment(broker_url=broker, prices=prices, **{**given, **overrides})
    except InvalidSettings as error:
        usage(str(error))
    for name, meant in misspelt_variables():
        note(f"{name} is no setting and is ignored. Did you mean {meant}?")
    apply_to_directories(settings)
    if "log_level" in given:
        # Celery's logging is slow to load.
        from snapferry.workers.telemetry import logs

        # A person reads it, whatever it is written to.
        text = {"log_format": "text"} if settings.log_format == "auto" else {}
        logs.configure(settings.model_copy(update=text))
    return settings


def check_config(path: str) -> None:
    """End the command if the configuration file at *path* cannot be used."""
    try:
        read_config(path)
    except InvalidSettings as error:
        usage(str(error))
