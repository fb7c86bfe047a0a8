"""Stores that snapdir wrote, verified by both: they agree on what is intact, and on what is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, Address, object_key
from snapferry.stores.opening import open_store
from snapferry.workers.copying.transfer import verify
from snapferry.workers.copying.transfer.verify import verify_batch

from .conftest import Snapshot
from .oracle import Oracle, Refused


class Quiet:
    def begin(self, needed: list[Address]) -> None:
        pass

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        pass


def findings(root: Path, snapshot: str, *, fast: bool) -> list[str]:
    store = open_store(str(root))
    with store.read_manifest(snapshot) as manifest:
        objects = manifest.objects()
    outcome = verify_batch(store, store, objects, Quiet(), fast=fast)
    assert outcome.present + len(outcome.failures) == len(objects)
    return sorted(failure.error for failure in outcome.failures)


def intact(oracle: Oracle, root: Path, snapshot: str) -> bool:
    try:
        return oracle.verify(snapshot, f"file://{root}")
    except Refused:
        return False


@pytest.mark.parametrize("fast", [False, True])
def test_every_store_of_snapdir_is_intact_whatever_sizes_its_links_have(
    snapshot: Snapshot, fast: bool
) -> None:
    assert findings(snapshot.store, snapshot.id, fast=fast) == []


DAMAGE: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    "missing": (Path.unlink, "ObjectMissing", True),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "IntegrityError", True),
    "empty": (lambda path: path.write_bytes(b""), "IntegrityError", True),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "IntegrityError", True),
    "flipped": (
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        "IntegrityError",
        False,
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_snapdir_and_we_find_the_same_damage(
    everything_snapshot: Snapshot,
    oracle: Oracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    monkeypatch.setattr(verify, "SECOND_LOOK_S", 0.0)
    root = tmp_path / "store"
    shutil.copytree(everything_snapshot.store, root)
    with open_store(str(root)).read_manifest(everything_snapshot.id) as manifest:
        addresses = sorted(manifest.objects().keys() - {EMPTY_ADDRESS})
    assert intact(oracle, root, everything_snapshot.id)
    change, error, fast_finds = DAMAGE[damage]
    path = root / object_key(addresses[0])
    path.chmod(0o644)
    change(path)

    assert not intact(Oracle(tmp_path / "fresh"), root, everything_snapshot.id)
    assert findings(root, everything_snapshot.id, fast=False) == [error]
    assert findings(root, everything_snapshot.id, fast=True) == ([error] if fast_finds else [])
