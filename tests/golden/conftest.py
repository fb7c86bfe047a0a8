"""Snapshots that the real snapdir made, one for each of the trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapferry.stores.address import SnapshotId, manifest_key, parse_snapshot_id
from snapferry.stores.snapshot_store import SnapshotStore
from tests.golden.oracle import Oracle
from tests.golden.trees import TREES, everything
from tests.opening import open_store


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of *tree*, which snapdir filed in *store*. Tests look at both and change neither."""

    name: str
    tree: Path
    store: Path
    id: SnapshotId

    @property
    def text(self) -> bytes:
        """The manifest as snapdir stored it."""
        return (self.store / manifest_key(self.id)).read_bytes()

    @property
    def url(self) -> str:
        """The URL of *store*."""
        return f"file://{self.store}"

    def open(self) -> SnapshotStore:
        """Return *store* as ours."""
        return open_store(self.url)


@pytest.fixture(scope="session")
def session_oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    """snapdir with an empty cache, so that nothing comes from anywhere but the stores."""
    return Oracle(tmp_path / "cache")


def _make(name: str, make: Callable[[Path], None], folder: Path, oracle: Oracle) -> Snapshot:
    tree, store = folder / "tree", folder / "store"
    tree.mkdir()
    make(tree)
    return Snapshot(name, tree, store, parse_snapshot_id(oracle.push(tree, f"file://{store}")))


@pytest.fixture(scope="session", params=list(TREES))
def snapshot(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, session_oracle: Oracle
) -> Snapshot:
    """A snapshot of each of the trees in turn."""
    name: str = request.param
    return _make(name, TREES[name], tmp_path_factory.mktemp(name), session_oracle)


@pytest.fixture(scope="session")
def everything_snapshot(tmp_path_factory: pytest.TempPathFactory, session_oracle: Oracle) -> Snapshot:
    """One snapshot of all trees."""
    return _make("everything", everything, tmp_path_factory.mktemp("everything"), session_oracle)
