"""The whole product against the real snapdir: the command copies, snapdir verifies and pulls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.address import QUARANTINE, SnapshotId, manifest_key, object_key, parse_address
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.opening import open_store
from snapferry.stores.urls import parse_url
from tests.golden.conftest import Place, Snapshot
from tests.golden.files import contents, manifests_in
from tests.golden.oracle import Oracle, Refused
from tests.integration.forge import Forge
from tests.opening import open_backend


@pytest.mark.parametrize(
    ("here", "there"),
    [
        pytest.param("file", "file", id="file-to-file"),
        pytest.param("file", "s3", id="file-to-s3"),
        pytest.param("s3", "file", id="s3-to-file"),
        pytest.param("s3", "s3", id="s3-to-s3"),
    ],
)
def test_what_the_command_copied_snapdir_verifies_and_pulls(
    forge: Forge,
    here: str,
    there: str,
    place: Callable[[str, str], Place],
    environment: dict[str, str],
    everything_snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    oracle = Oracle(tmp_path / "cache", environment)
    source, destination = place(here, "source"), place(there, "destination")
    snapshot = oracle.push(everything_snapshot.tree, source.theirs)
    with everything_snapshot.open().read_manifest(snapshot) as manifest:
        objects = len(manifest.objects())

    command = ["sync", "--from", source.ours, "--to", destination.ours, "--id", snapshot, "--json"]
    first = forge.run(command, env=environment)
    again = forge.run(command, env=environment)

    assert first.code == 0, first.err
    assert first.document["state"] == "done"
    assert first.document["objects"]["copied"] == first.document["objects"]["total"] == objects
    assert again.code == 0, again.err
    assert again.document["objects"]["copied"] == 0
    assert again.document["objects"]["present"] == objects
    fresh = Oracle(tmp_path / "fresh cache", environment)
    assert fresh.verify(snapshot, destination.theirs)
    fresh.pull(snapshot, destination.theirs, tmp_path / "pulled")
    oracle.pull(snapshot, everything_snapshot.url, tmp_path / "expected")
    assert contents(tmp_path / "pulled") == contents(tmp_path / "expected")


def test_the_command_and_snapdir_sync_write_the_same_files_with_the_same_modes(
    forge: Forge, everything_snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    oracle.sync(everything_snapshot.id, everything_snapshot.url, f"file://{tmp_path}/theirs")

    ended = forge.run(
        [
            "sync",
            "--from",
            everything_snapshot.url,
            "--to",
            f"{tmp_path}/ours",
            "--id",
            everything_snapshot.id,
        ]
    )

    assert ended.code == 0, ended.err
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_snapdir_does_not_see_the_snapshot_when_the_command_failed(
    forge: Forge, everything_snapshot: Snapshot, oracle: Oracle, tmp_path: Path
) -> None:
    """All but the one corrupt object are at the destination then, and another run takes it from there."""
    oracle.sync(everything_snapshot.id, everything_snapshot.url, f"file://{tmp_path}/source")
    victim = max((tmp_path / "source" / ".objects").rglob("*"), key=lambda path: path.stat().st_size)
    right = victim.read_bytes()
    victim.write_bytes(right[:-1] + b"!")
    command = [
        "sync",
        "--from",
        f"{tmp_path}/source",
        "--to",
        f"{tmp_path}/ours",
        "--id",
        everything_snapshot.id,
    ]

    failed = forge.run([*command, "--json"])

    assert failed.code == 1
    assert failed.document["state"] == "failed"
    assert [error["error"] for error in failed.document["errors"]] == ["IntegrityError"]
    assert failed.document["objects"]["copied"] == failed.document["objects"]["total"] - 1
    assert manifests_in(tmp_path / "ours") == []
    with pytest.raises(Refused):
        oracle.verify(everything_snapshot.id, f"file://{tmp_path}/ours")

    victim.write_bytes(right)
    healed = forge.run([*command, "--json"])
    assert healed.document["objects"]["copied"] == 1
    assert oracle.verify(everything_snapshot.id, f"file://{tmp_path}/ours")


def test_snapdir_takes_a_bucket_that_was_healed_for_its_own(
    forge: Forge,
    place: Callable[[str, str], Place],
    environment: dict[str, str],
    everything_snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    """It ignores what is kept in quarantine."""
    oracle = Oracle(tmp_path / "cache", environment)
    bucket = place("s3", "healed")
    snapshot = oracle.push(everything_snapshot.tree, bucket.theirs)
    backend = open_backend(parse_url(bucket.ours))
    with everything_snapshot.open().read_manifest(snapshot) as manifest:
        wrong, gone, *_ = map(object_key, manifest.objects())
    backend.write(wrong, b"wrong")
    backend.delete(gone)
    backend.write(manifest_key(SnapshotId(parse_address(snapshot))), b"wrong")

    healed = forge.run(
        ["heal", bucket.ours, "--from", everything_snapshot.url, "--id", snapshot], env=environment
    )

    assert healed.code == 0, healed.err
    assert len(list(backend.keys(QUARANTINE))) == 2
    fresh = Oracle(tmp_path / "fresh cache", environment)
    assert fresh.verify(snapshot, bucket.theirs)
    fresh.sync(snapshot, bucket.theirs, f"file://{tmp_path}/copy")
    assert set(contents(tmp_path / "copy")) == set(contents(everything_snapshot.store))


def test_the_command_names_the_line_of_a_manifest_that_it_cannot_read(
    forge: Forge, everything_snapshot: Snapshot, tmp_path: Path
) -> None:
    text = b"D 755 " + everything_snapshot.id.encode() + b" 0 ./\nF 644 x\n"
    path = tmp_path / "source" / manifest_key(SnapshotId(digest(text)))
    path.parent.mkdir(parents=True)
    path.write_bytes(text)

    ended = forge.run(
        ["sync", "--from", f"{tmp_path}/source", "--to", f"{tmp_path}/ours", "--id", digest(text)]
    )

    assert ended.code == 1
    assert "ManifestSyntaxError" in ended.err
    assert "line 2 of the manifest" in ended.err
    assert not (tmp_path / "ours").exists()


def test_sizes_that_lie_do_not_keep_a_snapshot_from_being_copied_and_counted(
    forge: Forge, oracle: Oracle, tmp_path: Path
) -> None:
    """SIZE is advisory, and snapdir takes any 64 bits for it."""
    contents_ = [b"a", b"b", b""]
    sizes = [2**64 - 1, 0, 2**64 - 1]
    source = open_store(f"{tmp_path}/source")
    for data in contents_:
        source.put_object(digest(data), data)
    text = render(
        Entry("F", "644", digest(data), size, f"./{size}{data!r}")
        for data, size in zip(contents_, sizes, strict=True)
    )
    source.put_manifest(digest(text), text)

    ended = forge.run(
        ["sync", "--from", f"{tmp_path}/source", "--to", f"{tmp_path}/ours", "--id", digest(text), "--json"]
    )

    assert ended.code == 0, ended.err
    assert ended.document["objects"]["copied"] == 3
    assert ended.document["bytes"]["copied"] == 2
    assert 0 < ended.document["bytes"]["total"] < 2**63
    assert oracle.verify(digest(text), f"file://{tmp_path}/ours")
