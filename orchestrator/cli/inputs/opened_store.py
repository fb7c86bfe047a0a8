"""A store that a command reads in its own process, and the errors of reading it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from snapferry.orchestrator.cli.chosen import chosen
from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, EXIT_USAGE, note, usage
from snapferry.stores.access import TRUSTED, Right
from snapferry.stores.errors import (
    AmbiguousId,
    InvalidAddress,
    InvalidName,
    InvalidStoreURL,
    ManifestMissing,
    NameMissing,
    StoreError,
)
from snapferry.stores.inspection.paths import IsDirectory, PathMissing
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import StoreURL, parse_url
from snapferry.workers.settings.environment import Settings, store_options

from .store_names import store_url

# The user named a store, a snapshot or a name that cannot be or does not exist.
_NOT_THERE: Final = (
    AmbiguousId,
    InvalidAddress,
    InvalidName,
    InvalidStoreURL,
    ManifestMissing,
    NameMissing,
)


def parsed(settings: Settings, text: str, side: Literal["from", "to"] = "from") -> StoreURL:
    """Return the URL that *text* means: a URL, or the name of a store. An error in it ends the command."""
    try:
        return parse_url(store_url(settings, text)).with_defaults(**store_options(side))
    except InvalidStoreURL as error:
        usage(str(error))


def opened(
    settings: Settings, text: str, objects: str | None = None, side: Literal["from", "to"] = "from"
) -> SnapshotStore:
    """
    Return the store that *text* means, open for reading; its objects are at *objects* if that is given.

    An error in a URL ends the command. Nothing is sent yet.
    """
    objects_url = None if objects is None else parsed(settings, objects, side)
    return open_store(parsed(settings, text, side), objects_url, Right.READ, access=TRUSTED, create=False)


@contextmanager
def reading(code: int = EXIT_FAILED) -> Iterator[None]:
    """
    End the command with one line where the block fails.

    The exit code is `EXIT_USAGE` for a snapshot or path that does not exist, *code* for other errors of stores.
    """
    log = logging.getLogger("snapferry.stores")
    level = log.level
    # Warnings, such as of a second reading, would stand beside the one line that says how it ended.
    if "log_level" not in chosen():
        log.setLevel(logging.ERROR)
    try:
        yield
    except PathMissing as error:
        near = f". Near it: {', '.join(map(repr, error.near))}." if error.near else ""
        note(f"path {error.path!r} is not in snapshot {error.snapshot_id}{near}")
        raise SystemExit(EXIT_USAGE) from None
    except IsDirectory as error:
        usage(f"{str(error)!r} is a directory. Name a file; snapferry show lists them.")
    except _NOT_THERE as error:
        usage(str(error))
    except StoreError as error:
        note(f"{type(error).__name__}: {error}")
        raise SystemExit(code) from None
    finally:
        log.setLevel(level)
