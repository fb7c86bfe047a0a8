"""The URL that a text means: a URL, a path, or the name of a store in `snapferry.toml`."""

from __future__ import annotations

import os
import shlex

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.similar import suggestion
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import Settings


def named_url(settings: Settings, text: str) -> str:
    """
    Return the URL of the store named *text* in the configuration of *settings*; *text* itself if it cannot be a name.

    Raises `InvalidStoreURL` for a name that is not there, and `InvalidSettings` if the configuration cannot be read.
    """
    if "/" in text or not text:
        return text
    if settings.config is None:
        raise InvalidStoreURL(
            "",
            text,
            "is not a store URL; use file://, s3:// or an absolute path. No snapferry.toml is here that could name a"
            f" store{_directory_hint(text)}",
        )
    stores = read_config(settings.config).stores
    if text not in stores:
        hint = suggestion(text, stores) or _directory_hint(text)
        raise InvalidStoreURL(
            "", "", f"{text!r} is neither a store URL nor a name in {settings.config}{hint}"
        )
    return stores[text]


def _directory_hint(text: str) -> str:
    """Return the end of a message: how to name the directory *text*, "" if there is none."""
    return f". For the directory, write {shlex.quote(os.path.abspath(text))}" if os.path.isdir(text) else ""
