"""``tree://``: directory trees of this machine."""

from __future__ import annotations

from typing import Final

from snapferry.stores.backend import Backend
from snapferry.stores.urls import Opening, StoreKind, StoreURL


def _open(url: StoreURL, opening: Opening) -> Backend:
    # Not imported by processes that only read URLs.
    from .backend import TreeBackend
    from .place import TreePlace

    return TreeBackend(TreePlace(url.location, links=opening.follow_links, allows=opening.allows))


def _prepare() -> None:
    # As in `_open`.
    from . import backend  # noqa: F401


KIND: Final = StoreKind("tree", open=_open, is_local=True, is_tree=True, prepare=_prepare)
