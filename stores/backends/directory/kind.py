"""``file://``: stores in directories of this machine."""

from __future__ import annotations

from typing import Final

from snapferry.stores.backend import Backend
from snapferry.stores.urls import Opening, StoreKind, StoreURL


def _open(url: StoreURL, opening: Opening) -> Backend:
    # Not imported by processes that only read URLs.
    from .backend import DirectoryBackend

    return DirectoryBackend(url.location, create=opening.create, links=opening.follow_links)


def _prepare() -> None:
    # As in `_open`.
    from . import backend  # noqa: F401


KIND: Final = StoreKind("file", open=_open, is_local=True, prepare=_prepare)
