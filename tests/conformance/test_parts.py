"""Parts of objects, from and into every backend that can."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.paths import root
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.errors import PartsGone, StoreUnavailable
from snapferry.stores.features import PartsShape, ReadsRanges, TakesParts, feature_of
from tests.conformance.contract import MakePlace, Place
from tests.conformance.parts_contract import (
    DATA,
    KEY,
    LENGTH,
    OWNER,
    PART,
    ReadsRangesContract,
    Takes,
    TakesPartsContract,
    receipts_of,
    written,
)


class _AtAPlace:
    kind: str

    @pytest.fixture
    def place(self, make_place: MakePlace) -> Place:
        return make_place(self.kind)

    @pytest.fixture
    def objects(self, place: Place) -> Backend:
        return place.backend


class _InABucket(_AtAPlace):
    @pytest.fixture
    def damage(self, objects: Backend) -> Callable[[], None]:
        def damage() -> None:
            (note,) = objects.keys(".objects/.snapferry-parts/")
            objects.write(note.key, b"{}")

        return damage


class TestPartsAtRclone(_InABucket, ReadsRangesContract, TakesPartsContract):
    kind = "rclone"
    rewrites = False


class TestPartsAtMoto(_InABucket, ReadsRangesContract, TakesPartsContract):
    kind = "moto"
    # It answers 500, after which a part is sent again.
    gone = (StoreUnavailable,)


@pytest.mark.slow
class TestPartsAtCeph(_InABucket, ReadsRangesContract, TakesPartsContract):
    kind = "ceph"


class TestPartsInADirectory(_AtAPlace, ReadsRangesContract, TakesPartsContract):
    kind = "file"

    @pytest.fixture
    def folder(self, objects: Backend) -> Path:
        assert isinstance(objects, DirectoryBackend)
        return Path(objects.directory.path, KEY).parent

    @pytest.fixture
    def damage(self, folder: Path) -> Callable[[], None]:
        def damage() -> None:
            (note,) = folder.glob(".parts-*.note")
            note.write_bytes(b"[" * 100_000)

        return damage

    def test_others_cannot_read_the_secret(self, takes: Takes, folder: Path) -> None:
        begun = takes.begin()
        (note,) = folder.glob(".parts-*.note")
        assert note.stat().st_mode & 0o007 == 0
        begun.abort()

    def test_a_part_that_belongs_to_another_writer_is_not_written(self, takes: Takes) -> None:
        begun = takes.begin()
        receipts = receipts_of(begun, range(3))
        # A writer that was stopped for long, and has read other bytes.
        assert written(begun, 1, DATA[::-1], mine=False) == []
        begun.commit(lambda: [receipts[part] for part in range(3)])
        with takes.backend.open(KEY) as reader:
            assert reader.read(LENGTH + 1) == DATA

    def test_a_writer_waits_for_another_writer_of_its_part_and_for_the_commit(self, takes: Takes) -> None:
        begun, other = takes.begin(), takes.join()
        assert other is not None
        receipts = receipts_of(begun, range(3))
        committing, late = threading.Event(), threading.Event()
        errors: list[BaseException] = []

        def write_late() -> None:
            committing.wait()
            late.set()
            try:
                written(other, 0, DATA[::-1])
            except PartsGone as error:
                errors.append(error)

        thread = threading.Thread(target=write_late)
        thread.start()

        def settled() -> list[str]:
            committing.set()
            late.wait()
            # The other writer has the file open, or finds it gone: both are right.
            time.sleep(0.1)
            return [receipts[part] for part in range(3)]

        begun.commit(settled)
        thread.join()
        assert len(errors) == 1
        with takes.backend.open(KEY) as reader:
            assert reader.read(LENGTH + 1) == DATA

    def test_a_sweep_spares_it_while_it_is_written_to(self, takes: Takes, folder: Path, place: Place) -> None:
        begun = takes.begin()
        written(begun, 0)
        names = sorted(os.listdir(folder))
        root.sweep(os.open(folder, os.O_RDONLY), lambda *_: True)
        assert sorted(os.listdir(folder)) == names
        for path in folder.iterdir():
            os.utime(path, (0, 0))
        root.sweep(os.open(folder, os.O_RDONLY))
        assert place.leftovers() == []

    def test_a_file_without_a_note_is_removed_by_the_next_upload(
        self, takes: Takes, folder: Path, place: Place
    ) -> None:
        takes.begin()
        (note,) = folder.glob(".parts-*.note")
        note.unlink()
        for path in folder.iterdir():
            os.utime(path, (0, time.time() - 3600))
        kept = takes.feature.begin_parts(KEY, "job-2", PartsShape(LENGTH, PART, "version", "source"))
        again = takes.begin()
        assert kept is not None
        assert len(list(folder.glob(".parts-*"))) == 4
        kept.abort()
        again.abort()
        assert place.leftovers() == []

    def test_a_file_that_is_cut_off_is_not_joined(self, takes: Takes, folder: Path) -> None:
        begun = takes.begin()
        (file,) = (path for path in folder.glob(".parts-*") if path.suffix != ".note")
        os.truncate(file, PART)
        assert takes.join() is None
        with pytest.raises(PartsGone):
            written(begun, 0)
        begun.abort()

    def test_a_directory_copies_whole_from_a_directory_alone(self, takes: Takes, tmp_path: Path) -> None:
        assert takes.feature.copies_whole(DirectoryBackend(str(tmp_path)))
        assert not takes.feature.copies_whole(MemoryBackend())

    def test_where_files_cannot_be_locked_no_parts_are_taken(
        self, takes: Takes, monkeypatch: pytest.MonkeyPatch, place: Place
    ) -> None:
        from snapferry.stores.backends.directory.in_parts import upload

        monkeypatch.setattr(upload, "can_lock", lambda _: False)
        assert takes.feature.begin_parts(KEY, OWNER, PartsShape(LENGTH, PART, "v", "s")) is None
        assert place.leftovers() == []


def test_memory_does_neither() -> None:
    assert feature_of(MemoryBackend(), ReadsRanges) is None  # type: ignore[type-abstract]
    assert feature_of(MemoryBackend(), TakesParts) is None  # type: ignore[type-abstract]
    assert issubclass(S3Backend, TakesParts)
