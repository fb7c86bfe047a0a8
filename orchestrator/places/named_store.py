"""The URL that a text means: a URL, a path, or the name of a store in `snapferry.toml`."""

from __future__ import annotations

import os
import re

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.similar import suggestion
from snapferry.stores.urls import redact
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import Settings

from .local_path import absolute_path, for_directory

_is_url = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match


def named_url(settings: Settings, place: str | os.PathLike[str]) -> str:
    """
    Return the URL, or the absolute path, that *place* means.

    A text without a slash is the name of a store in the configuration of *settings*. It is never a directory, so that a
    misspelled name writes to no new one; only ``.``, ``..`` and ``~`` are. A text with a slash is a URL or a path, and
    so is an object of `pathlib`. The caller parses a URL.

    Raises `InvalidStoreURL` for a name that is not there, and for a path that `absolute_path` refuses; and
    `InvalidSettings` if the configuration cannot be read.
    """
    text = os.fspath(place)
    if not isinstance(place, str):
        return absolute_path(f"./{text}" if not text.startswith("/") else text)
    if not text or _is_url(text):
        return text
    if text in (".", "..") or text.startswith("~"):
        return absolute_path(text)
    if "/" not in text:
        return _named(settings, text)
    if ":" in text.partition("/")[0]:
        # As in s3:/bucket or host:/path: a directory is hardly meant, and would be created.
        raise InvalidStoreURL(
            "", redact(text), f"is not a store URL; use file:// or s3://{for_directory(text)}"
        )
    return absolute_path(text)


def _named(settings: Settings, text: str) -> str:
    if settings.config is None:
        raise InvalidStoreURL(
            "",
            redact(text),
            f"is not a store URL, and no snapferry.toml is here that could name a store{for_directory(text)}",
        )
    stores = read_config(settings.config).stores
    if text not in stores:
        similar = "" if os.path.isdir(text) else suggestion(text, stores)
        raise InvalidStoreURL(
            "",
            "",
            f"{redact(text)!r} is neither a store URL nor a name in {settings.config}{similar or for_directory(text)}",
        )
    return stores[text]
