"""Which store is meant: one that `snapferry.toml` names, or a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exit_codes import usage

if TYPE_CHECKING:
    from snapferry.workers.settings.environment import Settings


def store_url(settings: Settings, text: str) -> str:
    """Return the URL of the store that is called *text*; *text* itself where it can be no name. May end the command."""
    if "/" in text or settings.config is None:
        return text
    from snapferry.workers.settings.config_file import read_config
    from snapferry.workers.settings.environment import InvalidSettings

    try:
        stores = read_config(settings.config).stores
    except InvalidSettings as error:
        usage(str(error))
    if text not in stores:
        usage(f"{text!r} is no store URL, and {settings.config} has no store that is called so")
    return stores[text]
