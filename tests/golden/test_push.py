"""`snapferry push` against `snapdir push`: the same id and the same bytes, by an embedded fleet and by a real one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from snapferry.stores.opening import open_store
from tests.golden.files import contents
from tests.golden.odd_trees import ODD_TREES
from tests.golden.oracle import Oracle
from tests.golden.trees import everything
from tests.integration.forge import Forge
from tests.integration.processes import Fleet, snapferry, until
from tests.servers import S3Server


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tree that is easily got wrong, in one."""
    root = tmp_path_factory.mktemp("push") / "tree"
    root.mkdir()
    everything(root)
    for name, make in ODD_TREES.items():
        (root / name).mkdir()
        make(root / name)
    return root


def allowing(places: str, stores: Path) -> dict[str, str]:
    """Return the environment of a fleet that may read trees at *places*, and write to any store below *stores*."""
    return {"SNAPFERRY_ACCESS_READ": places, "SNAPFERRY_ACCESS_WRITE": f"file://{stores}"}


def bytes_in(store: Path) -> dict[str, bytes | None]:
    return {path: data for path, (_, data) in contents(store).items()}


def test_the_command_makes_the_store_that_snapdir_makes(
    forge: Forge, tree: Path, oracle: Oracle, tmp_path: Path
) -> None:
    expected = oracle.push(tree, f"file://{tmp_path}/theirs")

    ended = forge.run(["push", str(tree), "--to", f"file://{tmp_path}/ours"])
    again = forge.run(["push", "-q", str(tree), "--to", f"file://{tmp_path}/ours"])

    assert ended.code == again.code == 0, ended.err + again.err
    assert ended.out.splitlines()[-1] == expected
    assert again.out == f"{expected}\n"
    assert bytes_in(tmp_path / "ours") == bytes_in(tmp_path / "theirs")


def test_options_and_the_document(forge: Forge, tree: Path, session_oracle: Oracle, tmp_path: Path) -> None:
    patterns = [r"/modes$", r"\.txt$", "é"]
    arguments = [part for pattern in patterns for part in ("--exclude", pattern)]
    [theirs] = session_oracle.manifests([(tree, True, patterns)])

    ended = forge.run(
        [
            "push",
            str(tree),
            "--to",
            f"file://{tmp_path}/ours",
            "--no-follow",
            *arguments,
            "--json",
            "--walk-jobs",
            "1",
            "-j",
            "2",
            "--receipt",
            str(tmp_path / "receipt"),
        ]
    )

    assert ended.code == 0, ended.err
    snapshot = ended.document["snapshot"]
    assert open_store(f"file://{tmp_path}/ours").get_manifest(snapshot).decode() == f"{theirs}\n"
    assert snapshot in (tmp_path / "receipt").read_text()


def test_a_bucket_receives_what_snapdir_verifies_and_pulls(
    forge: Forge, tree: Path, rclone_s3: S3Server, tmp_path: Path
) -> None:
    environment = {**rclone_s3.environment, "SNAPDIR_S3_STORE_ENDPOINT_URL": rclone_s3.endpoint}
    oracle = Oracle(tmp_path / "cache", environment)
    bucket = rclone_s3.make_bucket()

    ended = forge.run(
        ["push", "-q", str(tree), "--to", rclone_s3.url(bucket, "some/prefix")], env=environment
    )

    assert ended.code == 0, ended.err
    snapshot = ended.out.strip()
    assert snapshot == oracle.id(tree)
    assert oracle.verify(snapshot, f"s3://{bucket}/some/prefix")


def test_the_speed_counts_bytes_that_are_read_for_checksums(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "long").write_bytes(os.urandom(5_000_000))
    push = ["push", str(tmp_path / "tree"), "--to", f"file://{tmp_path}/store", "--json"]

    forge.run(push)
    again = forge.run(push).document

    assert again["bytes"]["copied"] == 0
    assert again["progress"]["bytes_per_second"] > 0


def test_bad_input_is_refused_in_one_line(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tree").mkdir()
    there = f"file://{tmp_path}/store"
    for arguments in (
        [str(tmp_path / "not there"), "--to", there],
        [str(tmp_path / "file"), "--to", there],
        ["", "--to", there],
        [str(tmp_path), "--to", f"file://{tmp_path}"],
        [str(tmp_path / "tree"), "--to", "gs://bucket"],
        [str(tmp_path / "tree"), "--to", f"tree://{tmp_path}/other"],
        [str(tmp_path / "tree"), "--to", there, "--exclude", "("],
        [str(tmp_path / "tree"), "--to", there, "--exclude", "(?=a)"],
        [str(tmp_path / "tree"), "--to", there, "--walk-jobs", "0"],
    ):
        ended = forge.run(["push", *arguments])
        assert (ended.code, ended.out) == (2, "")
        assert "Traceback" not in ended.err
    assert not (tmp_path / "store").exists()


def test_a_file_that_cannot_be_in_a_manifest_fails_the_push(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "two\nlines").touch()

    ended = forge.run(["push", str(tmp_path / "tree"), "--to", f"file://{tmp_path}/store"])

    assert (ended.code, ended.out) == (1, "")
    assert "two\\nlines" in ended.err
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_fleet_pushes_what_its_operator_allows(
    tree: Path, redis_url: str, oracle: Oracle, tmp_path: Path
) -> None:
    # One of the trees has a link to a device.
    fleet = Fleet(redis_url, tmp_path, allowing(f"tree://{tree.parent} tree:///dev", tmp_path))
    (tmp_path / "forbidden").mkdir()
    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        ended = snapferry("push", "-q", "--broker", redis_url, str(tree), "--to", f"file://{tmp_path}/ours")
        refused = snapferry(
            "push",
            "-q",
            "--broker",
            redis_url,
            str(tmp_path / "forbidden"),
            "--to",
            f"file://{tmp_path}/ours",
        )

    assert ended.code == 0, ended.err
    assert ended.out.strip() == oracle.push(tree, f"file://{tmp_path}/theirs")
    assert bytes_in(tmp_path / "ours") == bytes_in(tmp_path / "theirs")
    assert (refused.code, refused.out) == (1, "")
    assert "NotAllowed" in refused.err


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing(redis_url: str, oracle: Oracle, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(3000):
        folder = tree / f"{number % 30}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(b"%d" % number)
    small_batches = {"SNAPFERRY_BATCH_OBJECTS": "100"}
    fleet = Fleet(redis_url, tmp_path, allowing(f"tree://{tree}", tmp_path))
    store = tmp_path / "ours"
    with fleet.orchestrator(), fleet.worker("one") as one:
        queued = snapferry(
            "push", "-q", "--detach", "--broker", redis_url, str(tree), "--to", f"file://{store}",
            env=small_batches,
        )  # fmt: skip
        until(lambda: len(list(store.rglob(".objects/*/*/*/*"))) > 200, "objects")
        for process in one.family():
            os.kill(process, signal.SIGKILL)
        assert list(store.rglob(".manifests/*/*/*/*")) == []
        with fleet.worker("two"):
            ended = snapferry("watch", "--broker", redis_url, queued.out.strip(), "--json")

    assert ended.code == 0, ended.err
    assert ended.document["snapshot"] == oracle.push(tree, f"file://{tmp_path}/theirs")
    assert bytes_in(store) == bytes_in(tmp_path / "theirs")
