"""Our reading of manifests agrees, byte for byte, with what snapdir wrote for every tree."""

from __future__ import annotations

from snapferry.stores.address import EMPTY_ADDRESS, OBJECTS, address_of, parse_address
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import render, snapshot_id
from snapferry.stores.manifest.parse import parse
from tests.golden.conftest import Snapshot
from tests.golden.oracle import Oracle
from tests.golden.trees import LARGE_BYTES, TREES


def test_our_id_of_a_stored_manifest_is_the_one_that_snapdir_gave(snapshot: Snapshot) -> None:
    assert snapshot_id(snapshot.text) == snapshot.id
    assert digest(snapshot.text) == snapshot.id


def test_rendering_what_was_parsed_gives_the_bytes_that_snapdir_wrote(snapshot: Snapshot) -> None:
    assert render(parse(snapshot.text)) == snapshot.text


def test_rendering_does_not_depend_on_the_order_of_the_entries(snapshot: Snapshot) -> None:
    assert render(reversed(parse(snapshot.text))) == snapshot.text


def test_snapdir_stores_what_it_prints_and_one_line_end(snapshot: Snapshot, oracle: Oracle) -> None:
    assert oracle.manifest(snapshot.tree).encode() + b"\n" == snapshot.text
    assert oracle.id(snapshot.tree) == snapshot.id


def test_every_file_and_folder_of_the_tree_is_an_entry_with_its_mode(snapshot: Snapshot) -> None:
    entries = {entry.path: entry for entry in parse(snapshot.text)}
    found = {"./": snapshot.tree}
    pending = [snapshot.tree]
    while pending:
        for path in pending.pop().iterdir():
            shown = f"./{path.relative_to(snapshot.tree)}"
            found[f"{shown}/" if path.is_dir() else shown] = path
            if path.is_dir():
                pending.append(path)

    assert entries.keys() == found.keys()
    for shown, path in found.items():
        assert entries[shown].permissions == f"{path.lstat().st_mode & 0o7777:o}"
        assert entries[shown].type == ("D" if path.is_dir() else "F")


def test_the_objects_of_a_manifest_are_exactly_those_that_snapdir_stored(snapshot: Snapshot) -> None:
    stored = {
        address_of(str(path.relative_to(snapshot.store)), OBJECTS)
        for path in (snapshot.store / ".objects").rglob("*")
        if path.is_file()
    }

    with snapshot.open().read_manifest(snapshot.id) as manifest:
        assert manifest.objects().keys() == stored


def test_every_object_that_snapdir_stored_is_read_and_hashes_right(snapshot: Snapshot) -> None:
    store = snapshot.open()
    with store.read_manifest(snapshot.id) as manifest:
        objects = manifest.objects()

    assert store.objects_needed(objects) == []
    assert {address: digest(store.get_object(address)) for address in objects} == {a: a for a in objects}


def test_a_store_of_snapdir_lists_its_snapshot(snapshot: Snapshot) -> None:
    assert snapshot.open().list_manifest_ids() == [snapshot.id]


def test_the_trees_hold_the_traps_that_they_are_for(everything_snapshot: Snapshot) -> None:
    """Were snapdir to change what it makes of a trap, the other tests would go on passing and mean less."""
    entries = {entry.path.removeprefix("./"): entry for entry in parse(everything_snapshot.text)}

    assert everything_snapshot.text.isascii() is False
    assert {path.split("/")[0] for path in entries if path} == set(TREES)
    assert entries["empty_file/zero"].checksum == EMPTY_ADDRESS
    assert entries["empty_directory/empty/inner/"].checksum == EMPTY_ADDRESS
    assert entries["links/link"].checksum == entries["links/target"].checksum
    assert entries["links/link"].size != entries["links/target"].size
    assert entries["links/link to zero"].checksum == EMPTY_ADDRESS
    assert entries["links/link to zero"].size == len("zero")
    assert entries["links/link to folder/inner"].type == "F"
    assert entries["odd_names/carriage\rreturn"].size == len("carriage\rreturn")
    assert entries["odd_names/ leading"].path == "./odd_names/ leading"
    assert entries["odd_names/# folder /#"].type == "F"
    assert entries["modes/mode 4755"].permissions == "4755"
    assert entries["large/large"].size == LARGE_BYTES


def test_where_a_link_and_its_target_disagree_on_the_size_the_larger_counts(
    everything_snapshot: Snapshot,
) -> None:
    entries = {entry.path: entry for entry in parse(everything_snapshot.text)}
    target, zero_link = entries["./links/target"], entries["./links/link to zero"]

    with everything_snapshot.open().read_manifest(everything_snapshot.id) as manifest:
        objects = manifest.objects()

    assert objects[parse_address(target.checksum)] == target.size
    assert objects[EMPTY_ADDRESS] == zero_link.size > 0
