"""A budget and hostile manifests with real processes: the command, its own Redis, an orchestrator and a worker."""

from __future__ import annotations

import json
from pathlib import Path

from snapferry.stores.address import SnapshotId, manifest_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.opening import open_store

from .processes import snapferry

BIG = 50 * 1000 * 1000


def test_a_large_object_that_is_listed_as_small_stops_a_job_with_a_budget(tmp_path: Path) -> None:
    source = open_store(str(tmp_path / "a"))
    data = bytes(BIG)
    source.put_object(digest(data), data)
    text = render([Entry("F", "644", digest(data), 1, "./big")])
    source.put_manifest(digest(text), text)

    ended = snapferry(
        "sync", "--id", digest(text), "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"),
        "--max-bytes", "1000", "--json",
    )  # fmt: skip

    receipt = json.loads(ended.out)
    assert ended.code == 1
    assert "--max-bytes 1,000" in ended.err
    assert receipt["objects"]["failed"] == 1
    assert [
        path for path in (tmp_path / "b").rglob("*") if path.is_file() and path.stat().st_size > 1000
    ] == []


def test_a_manifest_that_was_made_to_cost_memory_fails_its_snapshot_in_one_line(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a"))
    store.prepare()
    text = b"a\n" * 2**22
    store.manifests.write(manifest_key(SnapshotId(digest(text))), text)

    ended = snapferry(
        "sync", "--id", digest(text), "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "-q"
    )

    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "ManifestSyntaxError" in ended.err
