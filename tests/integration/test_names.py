"""Naming snapshots by the command, and copying them by names and by the first digits of their ids."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.address import SnapshotId
from snapferry.stores.names.name import NAMES
from tests.opening import open_store
from tests.sample import make_store
from tests.servers import S3Server

from .forge import Forge


def listed(
    forge: Forge, store: str, environment: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    ended = forge.run(["tag", store, "--json"], environment)
    assert ended.code == 0, ended.err
    return {each["name"]: each for each in json.loads(ended.out)}


@pytest.fixture
def snapshots(tmp_path: Path) -> list[SnapshotId]:
    """Two snapshots in the store `a`; the second one is the newer one."""
    first = make_store(tmp_path / "a", {"./f": b"1"})
    for path in (tmp_path / "a" / ".manifests").rglob("*"):
        os.utime(path, (1000, 1000))
    return [first, make_store(tmp_path / "a", {"./f": b"2"})]


def test_a_name_is_given_moved_listed_and_removed(
    forge: Forge, tmp_path: Path, snapshots: list[SnapshotId]
) -> None:
    store, (first, second) = str(tmp_path / "a"), snapshots

    def run(*arguments: str) -> tuple[int, Any]:
        ended = forge.run([*arguments, "--json"])
        assert ended.code == 0 or (ended.out, ended.err.count("\n")) == ("", 1)
        return ended.code, json.loads(ended.out) if ended.out else None

    assert listed(forge, store) == {}
    given = {"name": "nightly", "snapshot": first, "previous": None}
    assert run("tag", store, first[:6], "nightly") == (0, given)
    assert run("tag", store, "nightly@", "stable", "--if-was", "none") == (0, given | {"name": "stable"})
    moved = {"name": "nightly", "snapshot": second, "previous": first}
    assert run("tag", store, "latest", "nightly", "--if-was", first) == (0, moved)
    assert run("tag", store, first, "nightly", "--if-was", first) == (1, None)
    assert run("tag", store, first, "nightly", "--if-was", "none") == (1, None)
    assert {name: each["snapshot"] for name, each in listed(forge, store).items()} == {
        "nightly": second,
        "stable": first,
    }

    open_store(store).delete_manifest(first)
    (tmp_path / "a" / NAMES / "broken").write_text("\x1b[2J")
    found = listed(forge, store)
    assert (found["stable"]["dangling"], found["nightly"]["dangling"]) == (True, False)
    assert (found["broken"]["snapshot"], found["nightly"]["error"]) == (None, None)
    table = forge.run(["tag", store])
    assert table.out.replace("\n", "").isprintable()
    assert table.out.count("\n") == 4

    assert run("untag", store, "stable", "--if-was", second) == (1, None)
    assert run("untag", store, "stable") == (0, {"name": "stable", "snapshot": None, "previous": first})
    assert run("untag", store, "stable") == (2, None)
    assert run("tag", store, "--delete", "broken") == (
        0,
        {"name": "broken", "snapshot": None, "previous": None},
    )
    assert set(listed(forge, store)) == {"nightly"}


def test_latest_is_what_was_written_last_to_each_store(
    forge: Forge, tmp_path: Path, snapshots: list[SnapshotId]
) -> None:
    """As the page on names says: a copy of a snapshot that is there writes no manifest."""
    first, second = snapshots
    here, there = open_store(str(tmp_path / "a")), str(tmp_path / "b")

    def copied(text: str) -> SnapshotId | None:
        ended = forge.run(["sync", str(tmp_path / "a"), there, "--id", text])
        assert ended.code == 0, ended.err
        return open_store(there).newest_snapshot()

    assert here.newest_snapshot() == second
    assert copied("latest") == second
    for path in (tmp_path / "b" / ".manifests").rglob("*"):
        os.utime(path, (1000, 1000))
    assert copied(first) == first
    assert copied("latest") == first
    for path in (tmp_path / "b" / ".manifests").rglob("*"):
        os.utime(path, (1000, 1000))
    assert open_store(there).newest_snapshot() == max(first, second)


def test_a_push_names_its_snapshot(forge: Forge, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"1")
    push = ["push", "-q", str(tmp_path / "tree"), "--to", store, "--tag"]

    for wrong in ("cafe", "../x", "latest", ""):
        refused = forge.run([*push, wrong])
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err
    assert not (tmp_path / "store").exists()
    pushed = forge.run([*push, "nightly"])
    assert pushed.code == 0, pushed.err
    assert {name: one["snapshot"] for name, one in listed(forge, store).items()} == {
        "nightly": pushed.out.strip()
    }


@pytest.mark.slow
def test_a_server_that_ignores_conditions_is_named_and_another_one_is_not(
    forge: Forge, tmp_path: Path, snapshots: list[SnapshotId], rclone_s3: S3Server, moto_s3: S3Server
) -> None:
    first = snapshots[0]
    for server, atomic in ((rclone_s3, False), (moto_s3, True)):
        url, environment = server.url(server.make_bucket(), "store"), server.environment
        copied = forge.run(["sync", "-q", "--from", str(tmp_path / "a"), "--to", url, "--all"], environment)
        assert copied.code == 0, copied.err

        plain = forge.run(["tag", url, first, "plain"], environment)
        given = forge.run(["tag", url, first, "nightly", "--if-was", "none"], environment)
        refused = forge.run(["tag", url, first, "nightly", "--if-was", "none"], environment)
        removed = forge.run(["untag", url, "nightly", "--if-was", first], environment)

        assert (plain.code, given.code, refused.code, removed.code) == (0, 0, 1, 0), given.err
        assert plain.err == ""
        assert given.err.count("\n") == (0 if atomic else 1)
        assert removed.err.count("\n") == (0 if atomic else 1)
        assert set(listed(forge, url, environment)) == {"plain"}
        backend = open_store(url).manifests
        assert [one.key for one in backend.keys(NAMES)] == [f"{NAMES}plain"], "no probe is left"


@pytest.mark.parametrize(
    "arguments",
    [
        ["5" * 64, "x"],
        ["5555", "x"],
        ["nobody@", "x"],
        ["latest", "../x"],
        ["latest", "X"],
        ["latest", "latest"],
        ["latest", "cafe"],
        ["latest"],
        ["latest", "x", "--delete", "x"],
        ["--if-was", "none"],
        ["latest", "x", "--if-was", "no id"],
        ["--delete", "x"],
        ["--delete", "../../outside"],
    ],
)
def test_what_cannot_be_meant_is_one_line_and_changes_nothing(
    forge: Forge, tmp_path: Path, snapshots: list[SnapshotId], arguments: list[str]
) -> None:
    (tmp_path / "outside").write_text("")

    ended = forge.run(["tag", str(tmp_path / "a"), *arguments])

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert (tmp_path / "outside").exists()
    assert not (tmp_path / "a" / ".names").exists()


def test_a_store_that_is_not_there_is_not_made(forge: Forge, tmp_path: Path) -> None:
    for arguments in (["latest", "x"], ["5" * 64, "x"], [], ["--delete", "x"]):
        ended = forge.run(["tag", str(tmp_path / "nowhere"), *arguments])
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1), ended.err
    assert not (tmp_path / "nowhere").exists()


def test_snapshots_are_copied_by_names_and_first_digits_from_a_bucket(
    forge: Forge, tmp_path: Path, snapshots: list[SnapshotId], rclone_s3: S3Server
) -> None:
    first, second = snapshots
    bucket = rclone_s3.url(rclone_s3.make_bucket(), "store")
    environment = rclone_s3.environment
    third = make_store(tmp_path / "a", {"./f": b"3"})
    (tmp_path / "ids").write_text(f"# by name\n{first[:10]}\nstable@\n{third}\n")
    assert forge.run(["tag", str(tmp_path / "a"), second, "stable"]).code == 0

    up = forge.run(
        [
            "sync",
            "--from",
            str(tmp_path / "a"),
            "--to",
            bucket,
            "--ids-from",
            str(tmp_path / "ids"),
            "--json",
        ],
        environment,
    )
    assert up.code == 0, up.err
    assert up.document["snapshots"]["published"] == 3
    assert forge.run(["tag", bucket, third[:4], "best"], environment).code == 0
    down = forge.run(
        ["sync", "--from", bucket, "--to", str(tmp_path / "b"), "--id", "best@", "--id", first[:8], "--json"],
        environment,
    )
    assert down.code == 0, down.err
    assert open_store(str(tmp_path / "b")).list_manifest_ids() == sorted([first, third])

    twice = forge.run(
        ["sync", "--from", bucket, "--to", str(tmp_path / "c"), "--id", "best@", "--id", third], environment
    )
    assert (twice.code, twice.err.count("\n")) == (2, 1)
    assert not (tmp_path / "c").exists()


def test_a_sync_carries_names_along_and_removes_those_that_are_gone(
    forge: Forge, tmp_path: Path, snapshots: list[SnapshotId], rclone_s3: S3Server
) -> None:
    first, second = snapshots
    store, bucket = str(tmp_path / "a"), rclone_s3.url(rclone_s3.make_bucket(), "store")
    environment = rclone_s3.environment
    for name, snapshot in (("old", first), ("nightly", second)):
        assert forge.run(["tag", store, snapshot, name]).code == 0

    def sync(*options: str) -> dict[str, Any]:
        ended = forge.run(["sync", "--from", store, "--to", bucket, "--json", *options], environment)
        assert ended.code == 0, ended.err
        found: dict[str, Any] = ended.document["names"]
        return found

    assert sync("--id", "old@") == {"carried": 0, "kept": 0, "removed": 0}
    assert sync("--id", "old@", "--names") == {"carried": 1, "kept": 0, "removed": 0}
    assert sync("--all", "--names", "--dryrun") == {"carried": 0, "kept": 0, "removed": 0}
    assert sync("--all", "--names") == {"carried": 2, "kept": 0, "removed": 0}
    assert forge.run(["tag", bucket, first, "theirs"], environment).code == 0
    assert forge.run(["untag", store, "old"]).code == 0
    assert sync("--all", "--names", "--delete") == {"carried": 1, "kept": 0, "removed": 1}

    ended = forge.run(["tag", bucket, "--json"], environment)
    found = {each["name"]: (each["snapshot"], each["carried"]) for each in json.loads(ended.out)}
    assert found == {"nightly": (second, True), "theirs": (first, False)}
