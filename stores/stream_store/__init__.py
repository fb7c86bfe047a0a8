"""
The interface of a store: the verbs of the snapshot format, and their streaming variants.

Everything that copies, publishes, verifies or deletes is written against `StreamStore`.
`stores.snapshot_store.SnapshotStore` fulfils it on any backend.

Obligations of every store:

*verified*: no bytes become visible at an address that they do not hash to, and no bytes that the store returns are used
before they were verified.
*manifest last*: a manifest is written after a check, from scratch, that every object that it names is there.
*an unanswered question is an error*: it is never reported as "absent".
*one tree of errors*: a store raises `stores.errors.StoreError` and nothing else.

    store          the verbs
    short_objects  those for many short objects at once
    values         what they take and return
"""

from __future__ import annotations

from .short_objects import ShortObjects, Staged
from .store import StreamStore
from .values import (
    FileTarget,
    FileTree,
    ListedManifest,
    ListedObject,
    Memory,
    Published,
    Replaced,
    Settled,
    Survey,
)

__all__ = [
    "FileTarget",
    "FileTree",
    "ListedManifest",
    "ListedObject",
    "Memory",
    "Published",
    "Replaced",
    "Settled",
    "ShortObjects",
    "Staged",
    "StreamStore",
    "Survey",
]
