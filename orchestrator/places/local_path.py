"""The absolute path that a relative one means to this process."""

from __future__ import annotations

import os
import shlex

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import redact


def absolute_path(text: str) -> str:
    """
    Return the path *text* as an absolute path: ``~`` is a home directory, another one is below the working directory.

    The working directory has no links, so ``..`` at the beginning leads to its parent. Everything after that is taken
    literally; nothing is looked up. Raises `InvalidStoreURL`.
    """
    text = expand_home(text)
    if text.startswith("/"):
        return text
    here, parts = working_directory(), text.split("/")
    while parts and parts[0] in ("", ".", ".."):
        if parts.pop(0) == "..":
            here = os.path.dirname(here)
    return "/".join([here.rstrip("/"), *parts]) or "/"


def working_directory() -> str:
    """Return the path of the working directory. Raises `InvalidStoreURL` if it has none any more."""
    try:
        found = os.getcwd()
    except OSError:
        found = ""
    # The kernel begins the path of a directory that cannot be reached with a text in brackets.
    if not found.startswith("/"):
        raise InvalidStoreURL(
            "",
            "the working directory",
            "does not exist any more; change to another directory, or give an absolute path",
        )
    return found


def for_directory(text: str) -> str:
    """Return the end of a message: how to write the directory *text*, "" for a text that is not shown."""
    return "" if redact(text) != text else f". For a directory, write {shlex.quote(f'./{text}')}"


def expand_home(text: str) -> str:
    """Return the path *text* with a home directory in place of ``~`` at its beginning. Raises `InvalidStoreURL`."""
    if not text.startswith("~"):
        return text
    found = os.path.expanduser(text)
    if not found.startswith("/"):
        user = text.partition("/")[0]
        raise InvalidStoreURL(
            "", redact(text), f"the home directory {user} is not known{for_directory(text)}"
        )
    return found
