"""Stores for tests: a test may open whatever it names."""

from __future__ import annotations

from snapferry.stores import opening
from snapferry.stores.access import TRUSTED
from snapferry.stores.backend import Backend
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import StoreURL


def open_store(url: str, objects_url: str | None = None, *, create: bool = True) -> SnapshotStore:
    return opening.open_store(url, objects_url, access=TRUSTED, create=create)


def open_backend(url: StoreURL, *, create: bool = True) -> Backend:
    return opening.open_backend(url, access=TRUSTED, create=create)
