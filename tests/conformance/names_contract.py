"""What the names of a store must do on every backend: looking snapshots up, and naming them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.dummy
import time
from itertools import pairwise
from typing import Any

import pytest

from snapferry.stores.address import MANIFESTS, Address, SnapshotId, manifest_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import (
    InvalidAddress,
    ManifestMissing,
    NameChanged,
    NameMissing,
    StoreError,
    StoreFault,
)
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.names.name import NAMES, Name, NameRecord, parse_name
from snapferry.stores.names.names import Names
from snapferry.stores.snapshot_store import SnapshotStore

NIGHTLY, STABLE = parse_name("nightly"), parse_name("stable-1.0")
ORIGIN = "0" * 64

# Moves that two processes try at the same time, and seconds to wait for one of them.
RACES = 5
PATIENCE_S = 240


def publish(store: SnapshotStore, text: bytes = b"some bytes") -> SnapshotId:
    store.put_object(digest(text), text)
    manifest = render([Entry("F", "644", digest(text), len(text), "./file")])
    store.put_manifest(snapshot_id(manifest), manifest)
    return snapshot_id(manifest)


def plant(manifests: Backend, text: str) -> SnapshotId:
    """File something under a manifest's key: a listing does not look inside."""
    planted = SnapshotId(Address(text.ljust(64, "0")))
    manifests.write(manifest_key(planted), b"x")
    return planted


class NamesContract:
    """Part of `StoreContract`, whose fixtures it uses."""

    def test_snapshots_are_found_by_the_first_digits_of_their_ids(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        ids = [plant(manifests, text) for text in ("aa", "abc", "abc1", "abcdef1234", "abcdef12345", "b0")]
        manifests.write(f"{MANIFESTS}abc/foreign", b"not a manifest")

        assert store.find_snapshots("a", 10) == ids[:5]
        assert store.find_snapshots("abc", 10) == ids[1:5]
        assert store.find_snapshots("abc", 2) == ids[1:3]
        for digits in ("abcd", "abcdef", "abcdef1", "abcdef123", "abcdef1234"):
            assert store.find_snapshots(digits, 10) == ids[3:5], digits
        assert store.find_snapshots("abcdef12345", 10) == [ids[4]]
        assert store.find_snapshots(ids[4], 10) == [ids[4]]
        for digits in ("abce", "0", "f", "abcdef2", "b1"):
            assert store.find_snapshots(digits, 10) == []
        for wrong in ("", "A", "abc/", "a" * 65, "g"):
            with pytest.raises(InvalidAddress):
                store.find_snapshots(wrong, 10)

    def test_the_newest_snapshot_is_the_one_written_last(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        assert store.newest_snapshot() is None

        first, newest = plant(manifests, "f"), plant(manifests, "0")
        # A listing may tell whole seconds only.
        while (listed := store.list_manifests())[newest].modified <= listed[first].modified:
            time.sleep(0.05)
            plant(manifests, "0")
        manifests.write(f"{MANIFESTS}fff/foreign", b"not a manifest")

        assert store.newest_snapshot() == newest

    def test_a_name_is_read_back_and_replaced(self, store: SnapshotStore) -> None:
        first, second = publish(store), publish(store, b"other bytes")

        with pytest.raises(NameMissing):
            store.names.read(NIGHTLY)
        assert store.names.listed() == {}
        assert store.names.write(NIGHTLY, NameRecord(first)).before is None
        assert store.names.write(NIGHTLY, NameRecord(first)).before == NameRecord(first)
        assert store.names.read(NIGHTLY) == NameRecord(first)
        assert store.names.write(NIGHTLY, NameRecord(second, ORIGIN)).before == NameRecord(first)
        assert store.names.read(NIGHTLY) == NameRecord(second, ORIGIN)

        store.names.write(STABLE, NameRecord(first))
        listed = store.names.listed()
        assert {name: (one.record, one.dangling) for name, one in listed.items()} == {
            NIGHTLY: (NameRecord(second, ORIGIN), False),
            STABLE: (NameRecord(first), False),
        }
        assert list(listed) == [NIGHTLY, STABLE]
        assert store.names.by_snapshot() == {second: [NIGHTLY], first: [STABLE]}

    def test_names_change_nothing_else_of_the_store(self, store: SnapshotStore) -> None:
        published = publish(store)
        before = store.list_manifests()

        store.names.write(NIGHTLY, NameRecord(published))

        assert store.list_manifests() == before
        assert store.objects_needed([digest(b"some bytes")]) == []

    def test_a_name_is_deleted_and_its_snapshot_stays(self, store: SnapshotStore) -> None:
        published = publish(store)
        store.names.write(NIGHTLY, NameRecord(published))

        with pytest.raises(NameChanged):
            store.names.delete(NIGHTLY, if_was=SnapshotId(digest(b"another")))
        assert store.names.read(NIGHTLY) == NameRecord(published)
        store.names.delete(NIGHTLY, if_was=published)
        store.names.delete(NIGHTLY)
        assert store.names.find(NIGHTLY) is None
        assert store.list_manifest_ids() == [published]

    def test_only_a_snapshot_of_the_store_can_be_named(self, store: SnapshotStore) -> None:
        absent = SnapshotId(digest(b"no manifest"))

        with pytest.raises(ManifestMissing):
            store.names.write(NIGHTLY, NameRecord(absent))
        assert store.names.names() == []

    def test_a_name_whose_snapshot_is_gone_dangles(self, store: SnapshotStore) -> None:
        published, kept = publish(store), publish(store, b"other bytes")
        store.names.write(NIGHTLY, NameRecord(published))
        store.names.write(STABLE, NameRecord(kept))

        store.delete_manifest(published)

        assert {name: one.dangling for name, one in store.names.listed().items()} == {
            NIGHTLY: True,
            STABLE: False,
        }

    def test_a_writer_may_name_what_it_expects(self, store: SnapshotStore) -> None:
        first, second = publish(store), publish(store, b"other bytes")

        store.names.write(NIGHTLY, NameRecord(first), if_was="")
        with pytest.raises(NameChanged):
            store.names.write(NIGHTLY, NameRecord(second), if_was="")
        with pytest.raises(NameChanged):
            store.names.write(STABLE, NameRecord(second), if_was=first)
        with pytest.raises(NameChanged):
            store.names.write(NIGHTLY, NameRecord(second), if_was=second)
        assert store.names.read(NIGHTLY) == NameRecord(first)
        assert store.names.find(STABLE) is None
        store.names.write(NIGHTLY, NameRecord(second), if_was=first)
        assert store.names.read(NIGHTLY) == NameRecord(second)

    def test_of_two_processes_that_move_a_name_one_moves_it(
        self, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each process checks the name before the other one writes it, unless the store keeps it from that."""
        ids = [publish(store, b"%d" % number) for number in range(RACES + 1)]
        if not store.names.write(NIGHTLY, NameRecord(ids[0]), if_was="").atomic:
            # The store cannot exclude another process, and says so.
            return
        expected = Names._expected

        def slowly(names: Names, name: Name, if_was: str | None) -> NameRecord | None:
            found = expected(names, name, if_was)
            time.sleep(0.02)
            return found

        monkeypatch.setattr(Names, "_expected", slowly)
        # The memory of a process is a store of its threads alone.
        in_memory = store.manifests_label.startswith("memory:")
        context: Any = multiprocessing.dummy if in_memory else multiprocessing.get_context("fork")
        results = context.Queue()
        barrier = context.Barrier(2)

        def move(origin: str) -> None:
            won = []
            for before, after in pairwise(ids):
                barrier.wait(PATIENCE_S)
                try:
                    store.names.write(NIGHTLY, NameRecord(after, origin), if_was=before)
                    won.append(after)
                except NameChanged:
                    pass
                barrier.wait(PATIENCE_S)
            results.put(won)

        movers = [context.Process(target=move, args=(origin,)) for origin in (ORIGIN, "1" * 64)]
        for mover in movers:
            mover.start()
        won = [results.get(timeout=PATIENCE_S) for _ in movers]
        for mover in movers:
            mover.join()
        assert sorted(won[0] + won[1]) == sorted(ids[1:])
        assert store.names.read(NIGHTLY).snapshot_id == ids[-1]

    @pytest.mark.parametrize(
        "content",
        [b"", b"a" * 64, b"a" * 64 + b"\n\n", b"../" * 21 + b"a\n", b"\x1b[2J" * 100_000],
        ids=["empty", "no newline", "two lines", "no id", "long"],
    )
    def test_what_is_no_record_is_refused_listed_as_such_and_replaced(
        self, store: SnapshotStore, manifests: Backend, content: bytes
    ) -> None:
        published = publish(store)
        manifests.write(f"{NAMES}{NIGHTLY}", content)
        store.names.write(STABLE, NameRecord(published))

        with pytest.raises(StoreFault) as caught:
            store.names.read(NIGHTLY)
        assert str(caught.value).isprintable()
        listed = store.names.listed()
        assert isinstance(listed[NIGHTLY].error, StoreError)
        assert listed[STABLE].record == NameRecord(published)
        with pytest.raises(StoreFault):
            store.names.write(NIGHTLY, NameRecord(published), if_was=published)
        assert store.names.write(NIGHTLY, NameRecord(published)).before is None
        assert store.names.read(NIGHTLY) == NameRecord(published)

    def test_foreign_keys_beside_the_names_are_ignored(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        published = publish(store)
        store.names.write(NIGHTLY, NameRecord(published))
        for foreign in (".tmp-x-1", "UPPER", "latest", "cafe", "has space", "x" * 65):
            manifests.write(NAMES + foreign, f"{published}\n".encode())

        assert store.names.names() == [NIGHTLY]
