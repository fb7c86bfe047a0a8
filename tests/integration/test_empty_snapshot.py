"""A snapshot without objects: only its manifest is written, and everything that tells of the job says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.stores.address import SnapshotId, manifest_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render

from .dashboards import dashboard
from .processes import Fleet, snapferry
from .raw_store import write_raw


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "a"


@pytest.fixture
def snapshot(store: Path) -> SnapshotId:
    """Return the id of a snapshot of an empty directory, which is in the store."""
    text = render([Entry("D", "755", digest(b""), 0, "./")])
    found = SnapshotId(digest(text))
    write_raw(store, manifest_key(found), text)
    return found


def copied(store: Path, to: Path, snapshot: SnapshotId) -> bool:
    """Return whether the manifest was written, as it was, and nothing beside it."""
    files = [file for file in to.rglob("*") if file.is_file()]
    key = manifest_key(snapshot)
    return files == [to / key] and files[0].read_bytes() == (store / key).read_bytes()


def test_a_command_says_that_the_manifest_is_written(
    store: Path, snapshot: SnapshotId, tmp_path: Path
) -> None:
    arguments = ("sync", "--from", str(store), "--id", snapshot, "--to")
    said = snapferry(*arguments, str(tmp_path / "b"))
    document = snapferry(*arguments, str(tmp_path / "c"), "--json").document

    assert said.code == 0, said.err
    assert said.out.startswith(f"snapshot {snapshot} is published: its manifest is written, and there are no")
    assert "nothing" not in said.out + said.err
    assert copied(store, tmp_path / "b", snapshot)
    assert copied(store, tmp_path / "c", snapshot)
    assert document["state"] == "done"
    assert document["snapshots"]["published"] == document["snapshots"]["total"] == 1
    assert document["objects"]["total"] == 0
    assert (document["progress"]["share"], document["progress"]["percent"]) == (1.0, 100)


def test_the_dashboard_and_the_fleet_say_so_too(
    store: Path, snapshot: SnapshotId, redis_url: str, tmp_path: Path
) -> None:
    fleet = Fleet(redis_url, tmp_path)
    with fleet.orchestrator(), dashboard(tmp_path, redis_url) as shown:
        ended = fleet.sync(
            "--from", str(store), "--to", str(tmp_path / "b"), "--id", snapshot, "--json", "--quiet"
        )
        assert ended.code == 0, ended.err
        job = ended.document["job"]
        status = snapferry("status", job, "--json", env={"SNAPFERRY_BROKER_URL": redis_url}).document
        listed, of_job = shown.page("/"), shown.page(f"/jobs/{job}")

    assert copied(store, tmp_path / "b", snapshot)
    assert (status["progress"]["share"], status["snapshots"]["published"]) == (1.0, 1)
    assert f"snapshot {snapshot} is published: its manifest is written" in of_job.text
    assert "100 %: the job has no objects" in of_job.text
    assert "100 % no objects" in listed.text
    assert "nothing to" not in of_job.text + listed.text
