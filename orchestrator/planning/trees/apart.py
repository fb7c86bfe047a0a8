"""
Whether a tree and a store on this machine are in each other.

*identity*: directories are compared by device and inode, so links and bind mounts of one directory are one directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from snapferry.stores.address import MANIFESTS, OBJECTS, QUARANTINE
from snapferry.stores.backends.tree.place import Identity, identity_of
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.names.name import NAMES
from snapferry.stores.network.endpoint import is_below
from snapferry.workers.messages import StoreRef


def check_apart(source: StoreRef, tree: StoreRef) -> None:
    """
    Make sure that neither of a store and a tree on this machine is in the other.

    A pull would write into the store, or delete it. Raises `InvalidStoreURL`.
    """
    place = tree.parsed.location
    for store in _places(source):
        if _is_in(store, place) or _is_in(place, store):
            raise InvalidStoreURL(
                "",
                tree.url,
                f"is in the store file://{store}, or the store is in it; pull to another directory",
            )


def check_pushable(tree: StoreRef, destination: StoreRef) -> None:
    """
    Make sure that a tree on this machine is not what a push to *destination* writes to. Raises `InvalidStoreURL`.

    A store that is somewhere in the tree is no error: it is left out of the snapshot, see `stores_in`.
    """
    place = tree.parsed.location
    for store in _places(destination):
        own = (os.path.join(store, folder) for folder in (OBJECTS, MANIFESTS, QUARANTINE, NAMES))
        if (_is_in(store, place) and _is_in(place, store)) or any(_is_in(place, each) for each in own):
            raise InvalidStoreURL(
                "", tree.url, f"is the store file://{store}, or a part of it; push another directory"
            )


def stores_in(destination: StoreRef) -> frozenset[Identity]:
    """Return the identities of the directories of this machine that *destination* consists of, and that exist."""
    found = (identity_of(store) for store in _places(destination))
    return frozenset(identity for identity in found if identity is not None)


def _places(store: StoreRef) -> Iterator[str]:
    for url in (store.parsed, store.parsed_objects):
        if url is not None and url.kind.is_local:
            yield url.location


def _is_in(inner: str, outer: str) -> bool:
    """Return whether *inner* is *outer* or is below it. Neither must exist."""
    inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    if is_below(inner, outer):
        return True
    identity = identity_of(outer)
    return identity is not None and identity in map(identity_of, (inner, *map(str, Path(inner).parents)))
