"""Names of snapshots: their form, what is filed under them, and which snapshot a text means."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.address import Address, SnapshotId, manifest_key
from snapferry.stores.backends.directory import locking
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import (
    AccessDenied,
    AmbiguousId,
    InvalidAddress,
    InvalidName,
    ManifestMissing,
    NameMissing,
    StoreError,
    StoreFault,
    StoreUnavailable,
)
from snapferry.stores.names import names
from snapferry.stores.names.lookup import CANDIDATES, find_snapshot, full_id, read_name, short_ids
from snapferry.stores.names.name import (
    NAMES,
    NameRecord,
    is_name,
    name_key,
    parse_name,
    parse_record,
    render_record,
)
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import OpenReader
from tests.conformance.names_contract import NIGHTLY, STABLE, publish

ID = SnapshotId(Address("8b1f" + "0" * 60))


def planted(*texts: str) -> SnapshotStore:
    backend = MemoryBackend()
    for text in texts:
        backend.write(manifest_key(SnapshotId(Address(text.ljust(64, "0")))), b"x")
    return SnapshotStore(backend)


@pytest.mark.parametrize("text", ["nightly", "a-b", "v1.2.3", "x", "2026-11-26", "g" * 64, "prod_eu"])
def test_a_name_has_a_key_of_one_part(text: str) -> None:
    assert parse_name(text) == text
    assert name_key(parse_name(text)) == f".names/{text}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "A",
        "Nightly",
        ".hidden",
        "-x",
        "x-",
        "x.",
        "a b",
        "x" * 65,
        "x\n",
        "é",
        "x@",
        *("latest", "8b1f", "cafe", "2026", "a" * 64, "x\0", "\u202ex", "con\x1b[2J"),
    ],
)
def test_what_is_no_name_is_refused_on_one_printable_line(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name(text)
    assert str(caught.value).isprintable()
    assert not is_name(text)


def test_a_name_with_the_mark_of_its_snapshot_is_told_without_it() -> None:
    with pytest.raises(InvalidName, match=r"leave out the @, as in nightly$"):
        parse_name("nightly@")


@pytest.mark.parametrize("text", ["cafe", "2026", "a" * 64])
def test_a_name_of_hex_digits_is_refused_with_the_reason_and_a_name_that_would_do(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse_name(text)
    assert "could be the beginning of a snapshot id" in caught.value.detail
    assert is_name(caught.value.detail.rpartition("such as ")[2])


@given(st.text(max_size=80))
def test_the_key_of_any_name_is_one_part_below_the_names(text: str) -> None:
    if is_name(text):
        assert os.path.normpath(f"/root/{name_key(parse_name(text))}") == f"/root/.names/{text}"
        assert text.casefold() == text


@given(st.binary(max_size=200))
@example(b"a" * 64 + b"\n")
@example(b"a" * 64 + b" " + b"b" * 64 + b"\n")
@example(b"a" * 64 + b"\n" + b"a" * 64 + b"\n")
def test_only_what_would_be_written_is_read(data: bytes) -> None:
    record = parse_record(data)
    assert record is None or render_record(record) == data


def test_no_cut_off_record_is_read_as_another_one() -> None:
    whole = render_record(NameRecord(ID, "1" * 64))

    assert parse_record(whole) == NameRecord(ID, "1" * 64)
    assert all(parse_record(whole[:length]) is None for length in range(len(whole)))


def test_a_full_id_is_returned_without_a_question() -> None:
    class Closed(MemoryBackend):
        def keys(self, prefix: str, start_after: str = "") -> None:  # type: ignore[override]
            raise AssertionError

    assert find_snapshot(SnapshotStore(Closed()), ID) == full_id(ID) == ID


def test_the_only_id_with_the_first_digits_is_meant() -> None:
    store = planted("8b1f1", "8b1f2", "8b20")

    assert find_snapshot(store, "8b20") == "8b20".ljust(64, "0")
    assert find_snapshot(store, "8b1f2") == "8b1f2".ljust(64, "0")
    assert find_snapshot(store, "8b1f10000") == "8b1f1".ljust(64, "0")


def test_digits_of_several_ids_list_them() -> None:
    store = planted("8b1f1", "8b1f" + "0" * 20, "8b1f" + "0" * 20 + "1")

    with pytest.raises(AmbiguousId) as caught:
        find_snapshot(store, "8b1f")
    listed = caught.value.detail
    assert all(each in listed for each in ("8b1f" + "0" * 20 + "0", "8b1f" + "0" * 20 + "1", "8b1f1"))

    many = planted(*(f"8b1f{number:04}" for number in range(100)))
    with pytest.raises(AmbiguousId) as caught:
        find_snapshot(many, "8b1f")
    assert caught.value.detail.count("8b1f") == CANDIDATES


def test_digits_of_no_id_list_ids_near_by() -> None:
    with pytest.raises(ManifestMissing) as caught:
        find_snapshot(planted("8b1e", "8b2"), "8b1f")
    assert "8b1e00000000" in caught.value.detail
    assert "8b2" not in caught.value.detail

    with pytest.raises(ManifestMissing) as caught:
        find_snapshot(planted(), "8b1f")
    assert "snapferry ls" in caught.value.detail


def test_a_name_without_its_mark_is_told_with_it() -> None:
    with pytest.raises(InvalidAddress) as caught:
        full_id("nightly")
    assert caught.value.detail.endswith("; did you mean nightly@?")
    with pytest.raises(InvalidAddress) as caught:
        full_id("8b1")
    assert "@?" not in caught.value.detail


def test_a_name_that_is_missing_is_missing_also_where_names_cannot_be_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = planted("8b1e")
    store.names.write(parse_name("stable"), NameRecord(find_snapshot(store, "8b1e")))
    with pytest.raises(NameMissing) as caught:
        read_name(store, parse_name("nightly"))
    assert caught.value.detail.endswith("; its names are stable@")

    def refused(_: object) -> list[str]:
        raise AccessDenied("s3://b", ".names/", "ListObjectsV2 returned 403")

    monkeypatch.setattr(type(store.names), "names", refused)
    with pytest.raises(NameMissing) as caught:
        read_name(store, parse_name("nightly"))
    assert "its names" not in caught.value.detail


@pytest.mark.parametrize(
    "text", ["", "8b1", "8B1F", "8b1fx", "a" * 65, "nightly", "@", "../../x@", "8b1f@", "a b@"]
)
def test_a_text_that_means_nothing_is_refused_before_a_question(text: str) -> None:
    with pytest.raises((InvalidAddress, InvalidName)):
        full_id(text)


def test_latest_is_the_newest_snapshot_and_the_highest_id_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    backend = MemoryBackend()
    store = SnapshotStore(backend)
    with pytest.raises(ManifestMissing):
        find_snapshot(store, "latest")
    for digit in "132":
        backend.write(manifest_key(SnapshotId(Address(digit * 64))), b"x")
    # An empty manifest is none.
    backend.write(manifest_key(SnapshotId(Address("9" * 64))), b"")

    assert find_snapshot(store, "latest") == find_snapshot(store, "latest@") == "3" * 64


def test_a_name_means_its_snapshot_and_an_unknown_one_lists_the_names() -> None:
    store = SnapshotStore(MemoryBackend())
    with pytest.raises(NameMissing):
        find_snapshot(store, "nightly@")
    published = publish(store)
    store.names.write(NIGHTLY, NameRecord(published))

    assert find_snapshot(store, "nightly@") == published
    with pytest.raises(NameMissing) as caught:
        find_snapshot(store, "stable@")
    assert "nightly@" in caught.value.detail


def test_a_search_through_foreign_keys_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.stores.pools.manifests.LONGEST_SEARCH", 50)
    backend = MemoryBackend()
    for number in range(60):
        backend.write(f".manifests/8b1/f{number}", b"x")

    with pytest.raises(StoreError):
        find_snapshot(SnapshotStore(backend), "8b1f")


def test_more_names_than_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SnapshotStore(MemoryBackend())
    published = publish(store)
    for number in range(4):
        store.names.write(parse_name(f"n{number}"), NameRecord(published))
    monkeypatch.setattr(names, "MOST_NAMES", 3)

    with pytest.raises(StoreFault):
        store.names.listed()


def test_a_directory_full_of_foreign_files_is_not_listed_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.stores.backends.directory.listing.MOST_FLAT", 3)
    store = SnapshotStore(DirectoryBackend(str(tmp_path)))
    published = publish(store)
    for number in range(4):
        assert store.names.write(parse_name(f"n{number}"), NameRecord(published)).before is None

    with pytest.raises(StoreFault):
        store.names.listed()
    assert store.names.read(parse_name("n3")) == NameRecord(published)


def test_a_store_that_does_not_answer_is_no_store_without_names() -> None:
    class Away(MemoryBackend):
        error: StoreError | None = None

        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            if key.startswith(NAMES) and self.error is not None:
                raise self.error
            return super().open(key, size_hint=size_hint)

    backend = Away()
    store = SnapshotStore(backend)
    store.names.write(NIGHTLY, NameRecord(publish(store)))

    backend.error = StoreUnavailable(backend.label, "", "away")
    for ask in (
        store.names.listed,
        lambda: store.names.find(NIGHTLY),
        lambda: find_snapshot(store, "nightly@"),
    ):
        with pytest.raises(StoreUnavailable):
            ask()
    # A refusal of one name is the failure of that name.
    backend.error = AccessDenied(backend.label, "", "refused")
    assert isinstance(store.names.listed()[NIGHTLY].error, AccessDenied)


def test_short_ids_tell_each_other_apart() -> None:
    def ids(*starts: str) -> list[SnapshotId]:
        return [SnapshotId(Address(start.ljust(64, "0"))) for start in starts]

    assert list(short_ids(ids("a", "a")).values()) == ["a".ljust(12, "0")]
    assert list(short_ids(ids("a", "b"), 8).values()) == ["a0000000", "b0000000"]
    near = short_ids(ids("123456789abd", "1234567890", "123456789abc"), 8)
    assert list(near.values()) == ["1234567890", "123456789abc", "123456789abd"]
    last = ids("0" * 63 + "1", "0" * 63 + "2")
    assert list(short_ids(last).values()) == last
    assert short_ids([]) == {}


def _write(root: str, ids: list[SnapshotId], number: int) -> None:
    store = SnapshotStore(DirectoryBackend(root))
    for turn in range(40):
        store.names.write(NIGHTLY, NameRecord(ids[(number + turn) % len(ids)], "1" * 64 if number else ""))


def test_of_processes_that_write_at_once_one_wins_and_no_record_is_torn(tmp_path: Path) -> None:
    store = SnapshotStore(DirectoryBackend(str(tmp_path)))
    ids = [publish(store, b"%d" % number) for number in range(3)]
    store.names.write(NIGHTLY, NameRecord(ids[0]))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(tmp_path), ids, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert store.names.read(NIGHTLY).snapshot_id in ids
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(os.listdir(tmp_path / ".names")) == [".lock", NIGHTLY]


def test_a_directory_without_locks_says_that_nobody_was_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(DirectoryBackend(str(tmp_path)))
    record = NameRecord(publish(store))

    assert store.names.write(NIGHTLY, record, if_was="").atomic
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(errno.ENOLCK, "no locks")))
    assert store.names.write(NIGHTLY, record, if_was=record.snapshot_id) == (record, False)
    assert not store.names.delete(NIGHTLY, if_was=record.snapshot_id)


def test_a_lock_that_is_never_released_is_an_error_and_a_dead_writer_holds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PATIENCE_S", 0.05)
    backend = DirectoryBackend(str(tmp_path))
    store = SnapshotStore(backend)
    record = NameRecord(publish(store))
    taken, go_on = multiprocessing.Event(), multiprocessing.Event()

    def hold() -> None:
        with DirectoryBackend(str(tmp_path)).lock(".names"):
            taken.set()
            go_on.wait()

    holder = multiprocessing.get_context("fork").Process(target=hold)
    holder.start()
    taken.wait()
    with pytest.raises(StoreUnavailable):
        store.names.write(NIGHTLY, record)
    holder.kill()
    holder.join()
    store.names.write(NIGHTLY, record)
    assert store.names.read(NIGHTLY) == record


@pytest.mark.parametrize("shape", ["link to a file", "link to a folder", "folder", "pipe"])
def test_what_a_hostile_directory_has_in_the_place_of_a_name_is_not_followed(
    tmp_path: Path, shape: str
) -> None:
    store = SnapshotStore(DirectoryBackend(str(tmp_path / "store")))
    published = publish(store)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "nightly").write_bytes(render_record(NameRecord(published)))
    at = tmp_path / "store" / ".names"
    if shape == "link to a folder":
        at.symlink_to(outside)
    else:
        at.mkdir()
        if shape == "link to a file":
            (at / "nightly").symlink_to(outside / "nightly")
        elif shape == "folder":
            (at / "nightly").mkdir()
        else:
            os.mkfifo(at / "nightly")

    with pytest.raises(StoreError) as caught:
        store.names.read(NIGHTLY)
    assert not isinstance(caught.value, NameMissing)
    if shape == "link to a folder":
        with pytest.raises(StoreError):
            store.names.write(STABLE, NameRecord(published))
        assert os.listdir(outside) == ["nightly"]
    else:
        store.names.write(STABLE, NameRecord(published))
        assert store.names.names() == [STABLE]
