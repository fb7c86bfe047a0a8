"""The store that an argument or an option means: by its URL, its path, or its name in `snapferry.toml`."""

from __future__ import annotations

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.places.named_store import named_url
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.settings.environment import InvalidSettings, Settings


def store_url(settings: Settings, text: str) -> str:
    """Return the URL or the absolute path that *text* means, see `named_url`; an error ends the command."""
    try:
        return named_url(settings, text)
    except (InvalidStoreURL, InvalidSettings) as error:
        usage(str(error))


def objects_url(settings: Settings, text: str | None) -> str | None:
    """Return the URL of the store of objects that *text* means, None for None; an error ends the command."""
    return None if text is None else store_url(settings, text)
