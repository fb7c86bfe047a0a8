"""
Stores of snapferry in SQLite files: the example of a plug-in.

    sqlite:///srv/backup.db     an absolute path, in which objects and manifests are rows

`KIND` is what the entry point names. The code that it needs is imported when a store is opened.
"""

from __future__ import annotations

from snapferry.stores.backend import Backend
from snapferry.stores.urls import Opening, StoreKind, StoreURL


def open_backend(url: StoreURL, opening: Opening) -> Backend:
    """Return the backend of a ``sqlite://`` URL. Opens no file yet."""
    from .backend import SqliteBackend

    return SqliteBackend(url.location, create=opening.create)


KIND = StoreKind("sqlite", open=open_backend, is_local=True)
