"""The tree that a store was opened as, to be written."""

from __future__ import annotations

from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.errors import StoreFault
from snapferry.stores.features import feature_of
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore

from .target import TreeTarget


def target_of(
    store: StreamStore, *, delete: bool = False, linked: bool = False, look_only: bool = False
) -> TreeTarget:
    """
    Return the tree of *store*, which was opened from the URL of a tree. *delete*, *linked*, *look_only*: `TreeTarget`.

    Raises `StoreFault` for a store that is not a tree.
    """
    tree = feature_of(store.objects, TreeBackend) if isinstance(store, SnapshotStore) else None
    if tree is None:
        raise StoreFault(store.label, "", "is a store, not a directory tree; its URL begins with tree://")
    place = tree.place
    return TreeTarget(place.path, links=place.links, delete=delete, linked=linked, look_only=look_only)
