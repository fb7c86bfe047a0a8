"""The directory backend."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.directory.paths import beneath
from snapferry.stores.errors import StoreError, StoreFull, StoreNotFound
from tests.conformance.contract import (
    BackendContract,
    MissingStoreContract,
    Place,
    SplitStoreContract,
    StoreContract,
    key,
    read,
    upload,
)


class TestFileBackend(BackendContract):
    kind = "file"

    @pytest.mark.parametrize("call", ["fsync", "rename", "write"])
    def test_a_write_that_fails_leaves_the_old_bytes_and_no_temporary_file(
        self, monkeypatch: pytest.MonkeyPatch, place: Place, call: str
    ) -> None:
        place.backend.write(key(1), b"old")
        calls = 0

        def fail(*_: object, **__: object) -> None:
            nonlocal calls
            calls += 1
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, call, fail)
            for at in (key(1), key(2)):
                with pytest.raises(StoreFull):
                    place.backend.write(at, b"new")
                with pytest.raises(StoreFull):
                    upload(place.backend, at, b"new", size_hint=3)

        assert calls == 4
        assert read(place.backend, key(1)) == b"old"
        assert place.backend.size(key(2)) is None
        assert place.leftovers() == []

    def test_a_root_that_vanishes_under_a_writer_is_an_error(self, place: Place) -> None:
        place.backend.write(key(1), b"x")
        shutil.rmtree(place.backend.label.removeprefix("file://"))

        with pytest.raises(StoreError):
            place.backend.write(key(2), b"x")
        with pytest.raises(StoreError), place.backend.upload(key(2), 1):
            pass


class TestFileBackendPartByPart(TestFileBackend):
    """Where the kernel has no openat2(2)."""

    @pytest.fixture(autouse=True)
    def no_openat2(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(beneath, "_openat2", None)


class TestFileBackendUncompiled(TestFileBackend):
    """Where the extension for many files is missing."""

    @pytest.fixture(autouse=True)
    def no_extension(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(extension, "_extension", None)


class TestMissingDirectory(MissingStoreContract):
    @pytest.fixture
    def absent(self, tmp_path: Path) -> Backend:
        return DirectoryBackend(str(tmp_path / "nowhere"))

    def test_it_may_be_written_to_and_only_that_creates_it(self, absent: Backend, tmp_path: Path) -> None:
        absent.check(for_writing=True)
        assert absent.size(key(1)) is None
        absent.delete(key(1))
        assert not (tmp_path / "nowhere").exists()

        absent.write(key(1), b"x")
        assert read(absent, key(1)) == b"x"

    def test_a_file_in_its_place_is_no_store(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(StoreNotFound):
                DirectoryBackend(str(root)).check(for_writing=True)


class TestStoreInDirectory(StoreContract):
    kind = "file"


class TestSplitStoreInDirectories(SplitStoreContract):
    kind = manifests_kind = "file"


def test_uploads_committed_together_appear_together_and_leave_no_temporary_file(tmp_path: Path) -> None:
    backend = DirectoryBackend(str(tmp_path / "store"))
    places = [f".objects/{n:03}/a/b/c" for n in range(50)]
    begun = [backend.upload(place, 3) for place in places]
    for number, one in enumerate(begun):
        one.write(b"%03d" % number)
    assert all(backend.size(place) is None for place in places)

    backend.commit_all(begun)

    for number, place in enumerate(places):
        with backend.open(place) as reader:
            assert reader.read(10) == b"%03d" % number
    assert [path for path in tmp_path.rglob("*") if ".tmp-" in path.name] == []


@pytest.mark.parametrize("compiled", [True, False])
def test_bytes_are_on_disk_before_a_name_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """Whatever the number of uploads: each rename comes behind a sync that came behind the last write."""
    calls: list[str] = []

    def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return real(*arguments, **options)

        return noted

    for name in ("write", "fsync", "rename"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    monkeypatch.setattr(
        "snapferry.stores.backends.directory.paths.root.sync_file_system", lambda _: calls.append("fsync")
    )
    real = extension.extension()
    if real is not None and compiled:

        def rename_many(folders: Sequence[int], *rest: Any) -> int:
            done = real.rename_many(folders, *rest)
            calls.extend(["rename"] * done)
            return done

        noted = {name: getattr(real, name) for name in vars(real)} | {"rename_many": rename_many}
        monkeypatch.setattr(extension, "_extension", SimpleNamespace(**noted))
    else:
        monkeypatch.setattr(extension, "_extension", None)
    for count in (1, 2, 30):
        backend = DirectoryBackend(str(tmp_path / str(count)))
        begun = [backend.upload(f".objects/{n:03}/a/b/c", 1) for n in range(count)]
        for one in begun:
            one.write(b"x")
        calls.clear()

        backend.commit_all(begun)

        assert calls.count("rename") == count
        for at, call in enumerate(calls):
            if call == "rename":
                synced = calls[:at].count("fsync")
                assert synced == 1 if count >= 30 else synced == calls[: at + 1].count("rename")
