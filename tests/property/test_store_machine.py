"""A store against a dictionary, while objects vanish, get torn, get corrupt, and batches and snapshots go on."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from snapferry.stores.address import MANIFESTS, OBJECTS, Address, SnapshotId, address_of, object_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import IntegrityError, ManifestIncomplete, ObjectMissing
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.transfer import copy_batch
from tests.property.strategies import machine

CONTENTS = [b"", b"a", b"bb", b"ccc", b"a larger object " * 10, b"f"]
ADDRESSES = [digest(data) for data in CONTENTS]
DATA = dict(zip(ADDRESSES, CONTENTS, strict=True))

some_addresses = st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4, unique=True)


class Ignored:
    def begin(self, needed: list[Address]) -> None:
        return None

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        return None


class StoreMachine(RuleBasedStateMachine):
    """
    *model* holds what the store's objects should be: address -> bytes, as whoever damaged them left them.

    *damaged* are the addresses that the machine itself has corrupted and nobody has replaced since.
    """

    snapshots = Bundle("snapshots")

    @initialize()
    def start(self) -> None:
        self.source = SnapshotStore(MemoryBackend("source"))
        for address, data in DATA.items():
            self.source.put_object(address, data)
        self.backend = MemoryBackend("destination")
        self.store = SnapshotStore(self.backend)
        self.model: dict[Address, bytes] = {}
        self.damaged: set[Address] = set()
        self.published: dict[SnapshotId, tuple[Address, ...]] = {}

    def present(self, address: Address) -> bool:
        """Say what the model knows of an object's presence: a torn one is absent."""
        return address in self.model and (bool(self.model[address]) or not DATA[address])

    @rule(address=st.sampled_from(ADDRESSES))
    def put(self, address: Address) -> None:
        self.store.put_object(address, DATA[address])
        self.model[address] = DATA[address]
        self.damaged.discard(address)

    @rule(address=st.sampled_from(ADDRESSES), data=st.sampled_from([*CONTENTS, b"other bytes"]))
    def put_other_bytes(self, address: Address, data: bytes) -> None:
        if digest(data) == address:
            return
        with pytest.raises(IntegrityError):
            self.store.put_object(address, data)

    @rule(address=st.sampled_from(ADDRESSES))
    def vanish(self, address: Address) -> None:
        self.backend.delete(object_key(address))
        self.model.pop(address, None)
        self.damaged.discard(address)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def tear(self, data: st.DataObject) -> None:
        """As a file system does that lost power: the name is there, the bytes are not."""
        address = data.draw(st.sampled_from(sorted(self.model)))
        self.backend.write(object_key(address), b"")
        self.model[address] = b""
        self.damaged.discard(address)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def corrupt(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.model)))
        self.backend.write(object_key(address), DATA[address] + b"?")
        self.model[address] = DATA[address] + b"?"
        self.damaged.add(address)

    @rule(addresses=some_addresses)
    def run_batch(self, addresses: list[Address]) -> None:
        absent = [address for address in addresses if not self.present(address)]

        outcome = copy_batch(self.source, self.store, dict.fromkeys(addresses, 1), Ignored())

        assert (outcome.copied, outcome.present) == (len(absent), len(addresses) - len(absent))
        assert outcome.failures == []
        self.model.update({address: DATA[address] for address in absent})

    @rule(addresses=some_addresses, lost=st.sampled_from(ADDRESSES))
    def run_batch_while_the_source_lacks_an_object(self, addresses: list[Address], lost: Address) -> None:
        poor = SnapshotStore(MemoryBackend("poor source"))
        for address in set(ADDRESSES) - {lost}:
            poor.put_object(address, DATA[address])
        absent = [address for address in addresses if not self.present(address)]

        outcome = copy_batch(poor, self.store, dict.fromkeys(addresses, 1), Ignored())

        assert [failure.address for failure in outcome.failures] == [a for a in absent if a == lost]
        self.model.update({address: DATA[address] for address in absent if address != lost})

    @rule(target=snapshots, addresses=some_addresses)
    def make_snapshot(self, addresses: list[Address]) -> tuple[Address, ...]:
        return tuple(addresses)

    @rule(addresses=snapshots)
    def publish(self, addresses: tuple[Address, ...]) -> None:
        text = render(Entry("F", "644", address, 1, f"./{address[:6]}") for address in addresses)
        snapshot = snapshot_id(text)
        missing = sorted(address for address in addresses if not self.present(address))
        before = self.store.list_manifest_ids()
        if missing:
            with pytest.raises(ManifestIncomplete) as raised:
                self.store.put_manifest(snapshot, text)
            assert sorted(raised.value.missing) == missing
            assert self.store.list_manifest_ids() == before
            return
        self.store.put_manifest(snapshot, text)
        # G1 at the moment of publishing: every object could be read, and all was right that nobody had damaged.
        for address in addresses:
            if address not in self.damaged:
                assert self.store.get_object(address) == DATA[address]
        self.published[snapshot] = addresses

    @rule(addresses=consumes(snapshots))
    def withdraw(self, addresses: tuple[Address, ...]) -> None:
        text = render(Entry("F", "644", address, 1, f"./{address[:6]}") for address in addresses)
        self.store.delete_manifest(snapshot_id(text))
        self.published.pop(snapshot_id(text), None)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def sync_again_heals(self, data: st.DataObject) -> None:
        """What vanished behind a manifest's back is found by the next sync of the snapshot, and brought back."""
        addresses = self.published[data.draw(st.sampled_from(sorted(self.published)))]
        self.run_batch(list(addresses))
        assert self.store.objects_needed(addresses) == []

    @invariant()
    def presence_is_what_the_model_says(self) -> None:
        assert self.store.objects_needed(ADDRESSES) == [a for a in ADDRESSES if not self.present(a)]

    @invariant()
    def nothing_visible_hashes_wrong_but_what_the_machine_damaged(self) -> None:
        for address in ADDRESSES:
            try:
                data = self.store.get_object(address)
            except ObjectMissing:
                assert address not in self.model
            except IntegrityError:
                assert address in self.damaged or self.model[address] == b""
            else:
                assert digest(data) == address
                assert self.model[address] == data

    @invariant()
    def the_snapshots_listed_are_those_that_were_published(self) -> None:
        assert self.store.list_manifest_ids() == sorted(self.published)
        for snapshot in self.published:
            with self.store.read_manifest(snapshot) as manifest:
                assert set(manifest.objects()) == set(self.published[snapshot])

    @invariant()
    def nothing_but_objects_and_manifests_is_ever_filed(self) -> None:
        for key in self.backend._files:
            assert address_of(key, OBJECTS) or address_of(key, MANIFESTS)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = machine
