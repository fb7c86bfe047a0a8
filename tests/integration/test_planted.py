"""Directories with something planted in them, and the commands of users: nothing leaks, hangs, or is deleted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.hashing import digest
from tests.sample import make_store, random_files

from .forge import Forge

GOOD = {"./good": b"good"}
SECRET = b"a secret of this machine"


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def endless(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("strange", [fifo, link, endless])
def test_a_planted_object_fails_its_snapshot_alone_and_shows_nothing(
    forge: Forge, tmp_path: Path, strange: Callable[[Path, Path], None]
) -> None:
    """Its bytes would be right: a first run might have told their digest, and this is the second."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    good = make_store(tmp_path / "a", GOOD)
    make_store(tmp_path / "a", {"./stolen": SECRET})
    planted = tmp_path / "a" / object_key(digest(SECRET))
    planted.unlink()
    strange(planted, secret)

    ended = forge.run(["sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--all"])

    assert ended.code == 1, ended
    assert str(planted) in ended.err
    assert forge.run(["ls", str(tmp_path / "b")]).out.split() == [good]
    assert not (tmp_path / "b" / object_key(digest(SECRET))).exists()


@pytest.mark.parametrize("strange", [fifo, link, endless])
def test_a_planted_manifest_ends_a_mirror_with_its_path_and_nothing_is_deleted(
    forge: Forge, tmp_path: Path, strange: Callable[[Path, Path], None]
) -> None:
    kept = make_store(tmp_path / "b", random_files(3))
    make_store(tmp_path / "a", GOOD)
    planted = tmp_path / "a" / manifest_key(kept)
    planted.parent.mkdir(parents=True)
    strange(planted, tmp_path / "b" / manifest_key(kept))
    options = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")]

    ended = forge.run(["sync", *options, "--all", "--delete", "--force-delete"])
    listed = forge.run(["ls", str(tmp_path / "a")])

    for found in (ended, listed):
        assert found.code == 1, found
        assert str(planted) in found.err
    assert forge.run(["ls", str(tmp_path / "b")]).out.split() == [kept]


def test_a_shard_on_a_disk_that_is_away_ends_a_mirror_and_nothing_is_deleted(
    forge: Forge, tmp_path: Path
) -> None:
    """With the setting that allows the link as well; it is followed once the disk is there."""
    snapshots = sorted(make_store(tmp_path / "a", {"./a": b"%d" % number}) for number in range(3))
    disk = tmp_path / "disk" / "store"
    options = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--all", "--delete"]
    assert forge.run(["sync", *options]).code == 0
    shard = tmp_path / "a" / ".manifests" / snapshots[0][:3]
    disk.parent.mkdir()
    shard.rename(disk)
    shard.symlink_to(disk)
    allowed = {"SNAPFERRY_FOLLOW_LINKS": str(disk)}

    there = [forge.run(["sync", *options]), forge.run(["sync", *options], env=allowed)]
    disk.rename(tmp_path / "disk" / "away")
    away = [forge.run(["sync", *options]), forge.run(["sync", *options], env=allowed)]

    assert [ended.code for ended in (*there, *away)] == [1, 0, 1, 1]
    assert all(f"{shard} is a symbolic link" in ended.err for ended in (there[0], *away))
    assert sorted(forge.run(["ls", str(tmp_path / "b")]).out.split()) == snapshots


def test_a_job_of_several_snapshots_says_why_they_are_not_published(forge: Forge, tmp_path: Path) -> None:
    for number in range(2):
        make_store(tmp_path / "a", {"./a": b"%d" % number})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".manifests").write_bytes(b"in the way")
    options = ["--from", str(tmp_path / "a"), "--all", "-q"]

    unwritten = forge.run(["sync", *options, "--to", str(tmp_path / "b")])
    planted = next((tmp_path / "a" / ".manifests").rglob("*/*/*/*"))
    planted.write_bytes(b"other bytes")
    unread = forge.run(["sync", *options, "--to", str(tmp_path / "c")])

    assert (unwritten.code, unread.code) == (1, 1)
    assert f"{tmp_path}/b/.manifests is " in unwritten.err
    assert "".join(planted.parts[-4:]) in unread.err
