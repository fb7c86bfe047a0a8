"""The store that an option means: by its URL, or by its name in `snapferry.toml`."""

from __future__ import annotations

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings


def store_url(settings: Settings, text: str) -> str:
    """Return the URL of the store named *text*, or *text* itself if it cannot be a name; an error ends the command."""
    if "/" in text or settings.config is None:
        return text
    try:
        stores = read_config(settings.config).stores
    except InvalidSettings as error:
        usage(str(error))
    if text not in stores:
        usage(f"{text!r} is neither a store URL nor a name in {settings.config}")
    return stores[text]
