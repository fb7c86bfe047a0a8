"""Manifests that somebody made to cost memory, time or room: what they cost is bounded, and what is said is clear."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, SnapshotId
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import ManifestSyntaxError, ManifestTooLarge, StoreFault
from snapferry.stores.hashing import digest
from snapferry.stores.manifest import canonical as canonical_module
from snapferry.stores.manifest.canonical import canonical, canonicalise
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.bounds import LONGEST_LINE, Bounds, set_bounds
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.snapshot_store import SnapshotStore
from tests import hostile_manifests

# What a process may take of memory for a manifest of 64 MiB, beside its tables: the spool, a run that is sorted.
MOST_GROWTH = 160 * 1024**2


def grown(kind: str, megabytes: int, name: str) -> int:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.hostile_manifests", kind, str(megabytes), name],
        capture_output=True, text=True, check=True, timeout=280, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return int(json.loads(ended.stdout)["grown"])


@pytest.mark.parametrize(
    ("kind", "name"),
    [("words", "other"), ("one-line", "own"), ("lines-of-a-megabyte", "other"), ("nuls", "own")],
)
def test_a_hostile_manifest_takes_bounded_memory(kind: str, name: str) -> None:
    assert grown(kind, 64, name) < MOST_GROWTH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "other"])
@pytest.mark.parametrize("kind", hostile_manifests.KINDS)
def test_every_kind_of_hostile_manifest_takes_bounded_memory(kind: str, name: str) -> None:
    assert grown(kind, 64, name) < MOST_GROWTH


@pytest.fixture
def small() -> object:
    """Small maxima for one test."""
    set_bounds(Bounds(manifest_bytes=10_000, objects=50, manifests=20))
    yield
    set_bounds(Bounds())


def many(count: int) -> bytes:
    return render(Entry("F", "644", digest(b"%d" % n), 1, f"./{n:04}") for n in range(count))


@pytest.mark.usefixtures("small")
def test_a_manifest_beyond_the_maximum_is_not_read_to_its_end() -> None:
    text = many(1000)
    reader = io.BytesIO(text)
    set_bounds(Bounds(manifest_bytes=1000))

    with pytest.raises(ManifestTooLarge, match="SNAPFERRY_MAX_MANIFEST_BYTES"):
        Manifest.read("a store", SnapshotId(digest(text)), reader)


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("before", [b"", many(3)])
def test_a_line_beyond_the_maximum_is_named(before: bytes, end: bytes) -> None:
    line = f"F 644 {EMPTY_ADDRESS} 1 ./".encode()
    longest = before + line + b"x" * (LONGEST_LINE - len(line)) + end
    too_long = before + line + b"x" * (LONGEST_LINE + 1 - len(line)) + end

    Manifest.from_bytes(SnapshotId(digest(longest)), longest).__exit__(None, None, None)
    with pytest.raises(ManifestSyntaxError) as raised:
        Manifest.from_bytes(SnapshotId(digest(too_long)), too_long)
    assert raised.value.detail.startswith(f"line {before.count(10) + 1} of the manifest")


@pytest.mark.usefixtures("small")
def test_a_table_holds_no_more_distinct_objects_than_the_maximum() -> None:
    same = render(Entry("F", "644", EMPTY_ADDRESS, n, f"./{n:04}") for n in range(60))
    with Manifest.from_bytes(SnapshotId(digest(same)), same) as manifest:
        assert len(manifest.table().digests) == 1
    set_bounds(Bounds(objects=50))
    text = many(51)
    with Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest, pytest.raises(ManifestTooLarge):
        manifest.table()


@pytest.mark.usefixtures("small")
def test_a_listing_beyond_the_maximum_is_refused_and_one_by_one_it_is_not() -> None:
    backend = MemoryBackend("a store")
    store = SnapshotStore(backend)
    texts = [many(n) for n in range(1, 22)]
    for text in texts[:20]:
        backend.write(prepare_key(text), text)
    assert len(store.list_manifests()) == 20
    backend.write(prepare_key(texts[20]), texts[20])

    with pytest.raises(ManifestTooLarge, match="more than 20 snapshots"):
        store.list_manifest_ids()
    assert sorted(map(digest, texts)) == list(store.manifest_ids())


def prepare_key(text: bytes) -> str:
    from snapferry.stores.address import manifest_key

    return manifest_key(SnapshotId(digest(text)))


@pytest.mark.parametrize("fan_in", [2, 3, 12])
def test_a_text_in_any_order_is_put_in_canonical_form_by_runs(
    monkeypatch: pytest.MonkeyPatch, fan_in: int
) -> None:
    monkeypatch.setattr(canonical_module, "_FAN_IN_BYTES", 1)
    monkeypatch.setattr(canonical_module, "_LEAST_FAN_IN", fan_in)
    monkeypatch.setattr(canonical_module, "_BYTES_AT_ONCE", 300)
    monkeypatch.setattr(canonical_module, "RUN_LINES", 7)
    monkeypatch.setattr(canonical_module, "_PIECE_BYTES", 100)
    monkeypatch.setattr(canonical_module, "_MERGE_BYTES", 1)
    monkeypatch.setattr(canonical_module, "_LEAST_BYTES", 50)
    lines = many(100).splitlines(keepends=True)
    texts = [
        b"".join(lines),
        b"".join(reversed(lines)),
        b"# a comment\n\n" + b"".join(lines[50:] + lines[:50])[:-1],
        b"",
        b"#\n",
        b"".join(line.replace(b" 1 ", b" %d " % n) for n, line in enumerate(lines[:5] * 4)),
    ]

    for text in texts:
        found = canonicalise(io.BytesIO(text))
        assert found is not None
        with found.file as file:
            file.seek(0)
            assert file.read() == canonical(text)
        assert (found.length, found.digest) == (len(canonical(text)), digest(canonical(text)))
    assert canonicalise(io.BytesIO(b"a\n" + texts[0])) is None


def test_the_longest_lines_in_the_wrong_order_are_sorted_in_bounded_memory() -> None:
    lines = 120
    with tempfile.TemporaryFile() as text:
        for n in reversed(range(lines)):
            start = b"F 600 %s 1 ./%05d" % (b"a" * 64, n)
            text.write(start + b"x" * (LONGEST_LINE - len(start)) + b"\n")
        tracemalloc.start()
        try:
            found = canonicalise(text)
            assert tracemalloc.get_traced_memory()[1] < 100 * 1024 * 1024
        finally:
            tracemalloc.stop()
    assert found is not None
    with found.file as file:
        file.seek(0)
        assert [int(line.split(b"./")[1][:5]) for line in file] == list(range(lines))


def test_a_temporary_directory_without_room_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The device that is always full, by its own name."""
    text = many(10)

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            with open("/dev/full", "wb", buffering=0) as full:
                return full.write(b"x")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda *_: Full())

    with pytest.raises(StoreFault, match=r"temporary directory .*No space left.*TMPDIR"):
        Manifest.from_bytes(SnapshotId(digest(text)), text)


class Stop(Exception):
    """The owner of the work wants no more of it."""


@pytest.mark.parametrize("large", [False, True])
def test_reading_a_manifest_stops_when_its_owner_says_so(large: bool) -> None:
    """Also where a part of it is read by another process, which must not ask the owner itself."""
    text = many(60_000 if large else 10_000)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked > 5:
            raise Stop

    with (
        Manifest.from_bytes(SnapshotId(digest(text)), text) as manifest,
        interruptible(check),
        pytest.raises(Stop),
    ):
        while True:
            manifest.table()
    with interruptible(check), pytest.raises(Stop):
        Manifest.from_bytes(SnapshotId(digest(text)), text)
