"""A store that we write is what snapdir would have written, and snapdir takes it for its own."""

from __future__ import annotations

from pathlib import Path

from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.opening import open_store
from tests.golden.conftest import Snapshot
from tests.golden.files import contents, copy_snapshot
from tests.golden.oracle import Oracle, Refused


def test_our_copy_is_what_snapdir_sync_writes_byte_for_byte_and_mode_for_mode(
    snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    copy_snapshot(snapshot.open(), open_store(str(tmp_path / "ours")), snapshot.id)
    oracle.sync(snapshot.id, snapshot.url, f"file://{tmp_path}/theirs")

    ours = contents(tmp_path / "ours")

    assert ours == contents(tmp_path / "theirs")
    assert sum(data is not None for _, data in ours.values()) >= 1


def test_snapdir_verifies_our_copy_and_pulls_from_it_what_it_pulls_from_its_own(
    snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    copy_snapshot(snapshot.open(), open_store(str(tmp_path / "ours")), snapshot.id)

    assert oracle.verify(snapshot.id, f"file://{tmp_path}/ours")
    oracle.pull(snapshot.id, f"file://{tmp_path}/ours", tmp_path / "from ours")
    Oracle(tmp_path / "other cache").pull(snapshot.id, snapshot.url, tmp_path / "from theirs")
    assert contents(tmp_path / "from ours") == contents(tmp_path / "from theirs")
    # A pull makes files of links, and those are of another size: such a tree gets another id.
    same = snapshot.name != "links"
    assert (oracle.id(tmp_path / "from ours") == snapshot.id) is same


def test_copying_again_over_a_copy_of_snapdir_changes_nothing(
    everything_snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    oracle.sync(everything_snapshot.id, everything_snapshot.url, f"file://{tmp_path}/copy")
    before = contents(tmp_path / "copy")

    copy_snapshot(everything_snapshot.open(), open_store(str(tmp_path / "copy")), everything_snapshot.id)

    assert contents(tmp_path / "copy") == before


def test_snapdir_ignores_a_quarantine_and_takes_a_healed_store_for_its_own(
    everything_snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    """It verifies the store, copies and pulls from it, and pushes the same tree to it without writing anything."""
    url = f"file://{tmp_path}/healed"
    oracle.sync(everything_snapshot.id, everything_snapshot.url, url)
    whole = contents(tmp_path / "healed")
    healed, source = open_store(url), everything_snapshot.open()
    with source.read_manifest(everything_snapshot.id) as manifest:
        addresses = list(manifest.objects())
    for address in addresses[:3]:
        (tmp_path / "healed" / object_key(address)).write_bytes(b"wrong")
    (tmp_path / "healed" / manifest_key(everything_snapshot.id)).write_bytes(b"wrong")
    assert not oracle_verifies(oracle, everything_snapshot.id, url)

    for address in addresses[:3]:
        healed.replace_object(source, address)
    healed.publish_all(source, [everything_snapshot.id])

    before = contents(tmp_path / "healed")
    assert sum(data == b"wrong" for _, data in before.values()) == 4
    assert oracle.verify(everything_snapshot.id, url)
    oracle.sync(everything_snapshot.id, url, f"file://{tmp_path}/copy")
    assert contents(tmp_path / "copy") == whole
    oracle.pull(everything_snapshot.id, url, tmp_path / "pulled")
    assert oracle.push(everything_snapshot.tree, url) == everything_snapshot.id
    assert contents(tmp_path / "healed") == before


def oracle_verifies(oracle: Oracle, snapshot: str, url: str) -> bool:
    try:
        return oracle.verify(snapshot, url)
    except Refused:
        return False


def test_snapdir_finds_the_manifest_in_our_copy_and_the_objects_in_a_pool_beside_it(
    everything_snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    """With split pools each pool holds its half of what one store would hold, and nothing of the other."""
    split = open_store(str(tmp_path / "manifests"), str(tmp_path / "objects"))
    copy_snapshot(everything_snapshot.open(), split, everything_snapshot.id)
    oracle.sync(everything_snapshot.id, everything_snapshot.url, f"file://{tmp_path}/theirs")

    whole = contents(tmp_path / "theirs")
    assert contents(tmp_path / "manifests") == {k: v for k, v in whole.items() if k.startswith(".manifests")}
    assert contents(tmp_path / "objects") == {k: v for k, v in whole.items() if k.startswith(".objects")}
