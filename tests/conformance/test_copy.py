"""Copying objects between every two kinds of stores."""

from __future__ import annotations

from itertools import product

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.errors import IntegrityError, ObjectMissing
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.snapshot_store import SnapshotStore
from tests.conformance.contract import KINDS, MIB, MakePlace, noise, read

# Around the boundaries of chunks and of S3's parts.
LENGTHS = (0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * MIB, 8 * MIB, 20 * MIB + 5)


# Each way through the code and each kind of store, on both sides. The other pairs take minutes.
PAIRS = {
    ("memory", "memory"),
    ("file", "file"),
    ("file", "rclone"),
    ("rclone", "file"),
    ("rclone", "moto"),
    ("moto", "memory"),
}


@pytest.mark.parametrize(
    ("source_kind", "destination_kind"),
    [pytest.param(*pair, marks=() if pair in PAIRS else pytest.mark.slow) for pair in product(KINDS, KINDS)],
)
def test_an_object_of_any_length_is_copied(
    make_place: MakePlace, source_kind: str, destination_kind: str
) -> None:
    source, place = SnapshotStore(make_place(source_kind).backend), make_place(destination_kind)
    destination = SnapshotStore(place.backend)
    for length in LENGTHS:
        data = noise(length)
        address = digest(data)
        source.put_object(address, data)
        # The sizes in a manifest are advisory: the right one, none, one too small, one too large.
        for hint in (length, 0, length // 2, length + MIB) if length < 4 * MIB else (length,):
            pieces: list[int] = []

            copied = destination.copy_object(source, address, size_hint=hint, on_bytes=pieces.append)

            assert copied == sum(pieces) == length, (length, hint)
            assert read(place.backend, object_key(address)) == data, (length, hint)
            place.backend.delete(object_key(address))
    assert place.leftovers() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [10, MIB, 20 * MIB])
def test_a_corrupt_source_object_leaves_nothing_at_the_destination(
    make_place: MakePlace, kind: str, length: int
) -> None:
    source, place = make_place("memory").backend, make_place(kind)
    address = digest(noise(length))
    source.write(object_key(address), noise(length)[:-1] + b"!")

    for hint in (length, 0):
        with pytest.raises(IntegrityError) as caught:
            SnapshotStore(place.backend).copy_object(SnapshotStore(source), address, size_hint=hint)
        assert (caught.value.store, caught.value.subject) == (source.label, address)

    assert place.backend.size(object_key(address)) is None
    assert list(place.backend.keys(".objects/")) == []
    assert place.leftovers() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_source_object_leaves_the_good_one_at_the_destination(
    make_place: MakePlace, kind: str
) -> None:
    source, destination = make_place("memory").backend, SnapshotStore(make_place(kind).backend)
    address = digest(b"good")
    destination.put_object(address, b"good")
    source.write(object_key(address), b"evil")

    with pytest.raises(IntegrityError):
        destination.copy_object(SnapshotStore(source), address, size_hint=4)

    assert destination.get_object(address) == b"good"


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_the_source_lacks_is_missing_there(make_place: MakePlace, kind: str) -> None:
    source, destination = (SnapshotStore(make_place(k).backend) for k in (kind, "memory"))

    with pytest.raises(ObjectMissing) as caught:
        destination.copy_object(source, digest(b"nowhere"))
    assert caught.value.store == source.label
