"""The contract of every backend, for the example plug-in. This file is all that a new kind of store needs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from snapferry.stores.backend import Backend
from snapferry.stores.backends.memory import MemoryBackend
from tests.conformance.contract import (
    BackendContract,
    MakePlace,
    MissingStoreContract,
    Place,
    SplitStoreContract,
    StoreContract,
)
from tests.plugin_sqlite.snapferry_sqlite.backend import SqliteBackend


class Places:
    """Makes empty stores in SQLite files, and in memory for the tests that need another kind."""

    kind = "sqlite"

    @pytest.fixture
    def make_place(self, tmp_path: Path) -> MakePlace:
        numbers = itertools.count()

        def make(kind: str) -> Place:
            backend: Backend = MemoryBackend()
            if kind == "sqlite":
                backend = SqliteBackend(str(tmp_path / f"{next(numbers)}.db"))
                backend.prepare()
            return Place(backend, list)

        return make


class TestSqliteBackend(Places, BackendContract):
    pass


class TestStoreOnSqlite(Places, StoreContract):
    pass


@pytest.mark.slow
class TestManifestsInMemory(Places, SplitStoreContract):
    manifests_kind = "memory"


class TestMissingFile(MissingStoreContract):
    @pytest.fixture
    def absent(self, tmp_path: Path) -> Backend:
        return SqliteBackend(str(tmp_path / "missing.db"))
