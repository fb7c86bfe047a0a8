"""Snapshots that the real snapdir made, one for each of the trees, and stores for both programs."""

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
from tests.servers import S3Server


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


@dataclass(frozen=True)
class Place:
    """A store for both programs: our URL says where its server is, snapdir has it from *environment*."""

    ours: str
    theirs: str
    write: Callable[[str, bytes], None]
    """Write bytes under a key of the store, as neither program would."""
    remove: Callable[[str], None]
    """Remove a key."""


def _place_in(folder: Path) -> Place:
    def write(key: str, data: bytes) -> None:
        (folder / key).unlink()
        (folder / key).write_bytes(data)

    return Place(f"file://{folder}", f"file://{folder}", write, lambda key: (folder / key).unlink())


def _place_at(server: S3Server, prefix: str) -> Place:
    bucket = server.make_bucket()

    def write(key: str, data: bytes) -> None:
        server.client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=data)

    def remove(key: str) -> None:
        server.client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")

    return Place(server.url(bucket, prefix), f"s3://{bucket}/{prefix}", write, remove)


@pytest.fixture
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """What snapdir needs to reach the S3 server."""
    server: S3Server = request.getfixturevalue("rclone_s3")
    return {**server.environment, "SNAPDIR_S3_STORE_ENDPOINT_URL": server.endpoint}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], Place]:
    """Return a new store of a kind, `file` or `s3`."""

    def make(kind: str, name: str) -> Place:
        if kind == "file":
            return _place_in(tmp_path / name)
        return _place_at(request.getfixturevalue("rclone_s3"), "some/prefix")

    return make
