"""What every backend must do whose objects several processes copy in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from snapferry.stores.backend import Backend
from snapferry.stores.errors import KeyMissing, PartsGone, StoreFault
from snapferry.stores.features import (
    PartsShape,
    PartsUpload,
    PinnedObject,
    ReadsRanges,
    TakesParts,
    feature_of,
)
from tests.conformance.contract import MIB, Place, key, noise, read

# The least that Amazon takes.
PART = 5 * MIB
LENGTH = 2 * PART + 123
DATA = noise(LENGTH)
OWNER = "job-1"
KEY = key(1)


@dataclass
class Takes:
    """A backend that takes parts."""

    backend: Backend
    feature: TakesParts

    def begin(self) -> PartsUpload:
        begun = self.feature.begin_parts(KEY, OWNER, PartsShape(LENGTH, PART, "version", "source"))
        assert begun is not None
        return begun

    def join(self, owner: str = OWNER) -> PartsUpload | None:
        return self.feature.join_parts(KEY, owner)


def read_range(pinned: PinnedObject, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    with memoryview(buffer) as view:
        pinned.read_into(start, view)
    return bytes(buffer)


def written(upload: PartsUpload, part: int, data: bytes = DATA, *, mine: bool = True) -> list[str]:
    """Write *part* of *data*; return the receipts that were recorded."""
    found: list[str] = []
    start, stop = upload.shape.range_of(part)

    def record(receipt: str) -> bool:
        found.append(receipt)
        return True

    upload.write(part, bytearray(data[start:stop]), lambda: mine, record)
    return found


def receipts_of(upload: PartsUpload, parts: range | list[int]) -> dict[int, str]:
    return {part: written(upload, part)[0] for part in parts}


class ReadsRangesContract:
    """For a backend of which a process can read any range of one version."""

    @pytest.fixture
    def reading(self, objects: Backend) -> ReadsRanges:
        found = feature_of(objects, ReadsRanges)  # type: ignore[type-abstract]
        assert found is not None
        return found

    def test_any_range_of_a_version_is_read_also_by_another_process(
        self, objects: Backend, reading: ReadsRanges
    ) -> None:
        objects.write(KEY, DATA)
        pinned = reading.pin(KEY)
        assert pinned is not None
        again = reading.pinned(KEY, pinned.version, pinned.length)
        assert pinned.length == LENGTH
        for start, stop in [(0, 1), (PART - 1, PART + 1), (LENGTH - 7, LENGTH), (0, LENGTH)]:
            assert read_range(pinned, start, stop) == read_range(again, start, stop) == DATA[start:stop]
        pinned.close()
        again.close()

    def test_of_an_object_that_is_replaced_nothing_is_read(
        self, objects: Backend, reading: ReadsRanges
    ) -> None:
        objects.write(KEY, DATA)
        pinned = reading.pin(KEY)
        assert pinned is not None
        objects.write(KEY, DATA[::-1])
        with pytest.raises(PartsGone):
            # An open file is read to its end, whatever has its name now.
            again = reading.pinned(KEY, pinned.version, pinned.length)
            read_range(again, 0, 10)
        pinned.close()

    def test_what_is_not_there_cannot_be_pinned(self, reading: ReadsRanges) -> None:
        with pytest.raises(KeyMissing):
            reading.pin(KEY)


class TakesPartsContract:
    """
    For a backend to which several processes write the parts of one object.

    *gone*: the errors of a part whose upload has ended. *rewrites*: a part can be written again with other bytes.
    """

    rewrites = True
    gone: tuple[type[Exception], ...] = (PartsGone,)

    @pytest.fixture
    def takes(self, objects: Backend) -> Takes:
        found = feature_of(objects, TakesParts)  # type: ignore[type-abstract]
        assert found is not None
        return Takes(objects, found)

    def test_parts_in_any_order_from_several_writers_make_the_object(
        self, takes: Takes, place: Place
    ) -> None:
        one = takes.begin()
        two = takes.join()
        assert two is not None
        assert (two.shape, two.name, two.secret) == (one.shape, one.name, one.secret)
        receipts = receipts_of(two, [2, 0]) | receipts_of(one, [1])
        assert takes.backend.size(KEY) is None
        assert one.kept(receipts) == {0, 1, 2}

        one.commit(lambda: [receipts[part] for part in range(3)])

        assert read(takes.backend, KEY) == DATA
        assert [listed.key for listed in takes.backend.keys(".objects/")] == [KEY]
        assert takes.join() is None
        assert place.leftovers() == []

    def test_another_owner_does_not_find_it(self, takes: Takes) -> None:
        begun = takes.begin()
        assert takes.join("job-2") is None
        begun.abort()

    def test_an_abort_leaves_nothing_and_others_find_it_gone(self, takes: Takes, place: Place) -> None:
        one = takes.begin()
        two = takes.join()
        assert two is not None
        receipts = receipts_of(one, [0])
        one.abort()

        assert takes.join() is None
        with pytest.raises(self.gone):
            written(two, 1)
        with pytest.raises(PartsGone):
            two.kept(receipts)
        two.abort()
        assert [listed.key for listed in takes.backend.keys(".objects/")] == []
        assert place.leftovers() == []

    def test_what_is_left_of_an_upload_can_be_dropped_without_it(self, takes: Takes, place: Place) -> None:
        written(takes.begin(), 1)
        takes.feature.drop_parts(KEY, "job-2")
        assert takes.join() is not None
        takes.feature.drop_parts(KEY, OWNER)
        takes.feature.drop_parts(KEY, OWNER)
        assert takes.join() is None
        assert [listed.key for listed in takes.backend.keys(".objects/")] == []
        assert place.leftovers() == []

    def test_parts_stay_for_the_next_process_and_only_those_that_are_there(self, takes: Takes) -> None:
        first = takes.begin()
        receipts = receipts_of(first, [1])
        first.close()
        second = takes.join()
        assert second is not None
        assert second.kept(receipts | {0: "not a receipt", 2: ""}) == {1}
        second.abort()

    def test_a_receipt_of_a_part_that_was_written_again_counts_for_nothing(self, takes: Takes) -> None:
        """A stranger may repeat an older record: what was verified then is not what is there now."""
        begun = takes.begin()
        receipts = receipts_of(begun, range(3))
        if not self.rewrites:
            with pytest.raises(StoreFault):
                written(begun, 1, DATA[::-1])
            begun.abort()
            return
        (again,) = written(begun, 1, DATA[::-1])
        assert begun.kept(receipts) == {0, 2}
        with pytest.raises(PartsGone):
            begun.commit(lambda: [receipts[part] for part in range(3)])
        begun.abort()
        assert takes.backend.size(KEY) is None
        assert again != receipts[1]

    def test_an_error_in_the_last_check_shows_nothing(self, takes: Takes, place: Place) -> None:
        begun = takes.begin()
        receipts_of(begun, range(3))

        def wrong() -> Any:
            raise PartsGone("", "", "not right")

        with pytest.raises(PartsGone):
            begun.commit(wrong)
        begun.abort()
        assert takes.backend.size(KEY) is None
        assert place.leftovers() == []

    def test_the_uploads_of_others_are_aborted_and_this_one_stays(self, takes: Takes, place: Place) -> None:
        begun = takes.begin()
        takes.backend.upload(KEY, 2 * 8 * MIB).write(noise(9 * MIB))
        begun.abort_others()
        receipts = receipts_of(begun, range(3))
        begun.commit(lambda: [receipts[part] for part in range(3)])
        assert read(takes.backend, KEY) == DATA

    def test_a_note_that_is_damaged_is_none(self, takes: Takes, damage: Callable[[], None]) -> None:
        begun = takes.begin()
        damage()
        assert takes.join() is None
        begun.abort()
