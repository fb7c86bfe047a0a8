"""The store that an argument or an option means: by its URL, or by its name in `snapferry.toml`."""

from __future__ import annotations

import os
import shlex

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.stores.text.similar import suggestion
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings


def store_url(settings: Settings, text: str) -> str:
    """Return the URL of the store named *text*, or *text* itself if it cannot be a name; an error ends the command."""
    if "/" in text or not text:
        return text
    if settings.config is None:
        usage(
            f"{text}: is not a store URL; use file://, s3:// or an absolute path. No snapferry.toml is here that could"
            f" name a store{_directory_hint(text)}"
        )
    try:
        stores = read_config(settings.config).stores
    except InvalidSettings as error:
        usage(str(error))
    if text not in stores:
        hint = suggestion(text, stores) or _directory_hint(text)
        usage(f"{text!r} is neither a store URL nor a name in {settings.config}{hint}")
    return stores[text]


def _directory_hint(text: str) -> str:
    """Return the end of a message: how to name the directory *text*, "" if there is none."""
    return f". For the directory, write {shlex.quote(os.path.abspath(text))}" if os.path.isdir(text) else ""


def objects_url(settings: Settings, text: str | None) -> str | None:
    """Return the URL of the store of objects that *text* means, None for None; an error ends the command."""
    return None if text is None else store_url(settings, text)
