"""
The real snapdir on large snapshots, and on what a fleet copied.

The large ones take minutes: ``make test-slow`` runs them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.golden.conftest import Snapshot
from tests.golden.files import contents
from tests.golden.oracle import Oracle
from tests.integration.processes import Finished, Fleet, snapferry
from tests.sample import tree
from tests.servers import S3Server

MIB = 1024 * 1024

Run = Callable[..., Finished]


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> S3Server:
    """The server with many small objects in its memory, which lists fast, or with few large ones on disk."""
    server: S3Server = request.getfixturevalue(getattr(request, "param", "rclone_memory_s3"))
    return server


@pytest.fixture
def environment(s3: S3Server) -> dict[str, str]:
    return {**s3.environment, "SNAPDIR_S3_STORE_ENDPOINT_URL": s3.endpoint}


@pytest.fixture
def fleet_of_two(redis_url: str, environment: dict[str, str], tmp_path: Path) -> Iterator[Run]:
    """A separate orchestrator and two workers around a real Redis."""
    fleet = Fleet(redis_url, tmp_path, environment)
    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        yield lambda *arguments: fleet.sync(*arguments, timeout_s=900)


@pytest.fixture
def embedded(environment: dict[str, str]) -> Run:
    """The private fleet of the command itself."""
    return lambda *arguments: snapferry("sync", *arguments, env=environment, timeout_s=900)


def copy_around(run: Run, oracle: Oracle, s3: S3Server, source: str, snapshot: str, folder: Path) -> None:
    """Copy file -> file, file -> S3, S3 -> S3, S3 -> file; snapdir verifies each, the last equals the first."""
    buckets = [s3.make_bucket(), s3.make_bucket()]
    hops = [
        (source, f"file://{folder}/one"),
        (f"file://{folder}/one", s3.url(buckets[0], "two")),
        (s3.url(buckets[0], "two"), s3.url(buckets[1])),
        (s3.url(buckets[1]), f"file://{folder}/four"),
    ]
    for here, there in hops:
        ended = run("--from", here, "--to", there, "--id", snapshot, "--json")
        assert ended.code == 0, ended.err
        assert ended.document["objects"]["copied"] == ended.document["objects"]["total"]
        assert oracle.verify(snapshot, there.partition("?")[0])
    assert tree(folder / "one") == tree(folder / "four")


@pytest.mark.slow
def test_what_a_fleet_copied_snapdir_verifies_and_pulls(
    fleet_of_two: Run,
    everything_snapshot: Snapshot,
    environment: dict[str, str],
    s3: S3Server,
    tmp_path: Path,
) -> None:
    oracle = Oracle(tmp_path / "cache", environment)

    copy_around(fleet_of_two, oracle, s3, everything_snapshot.url, everything_snapshot.id, tmp_path)

    oracle.pull(everything_snapshot.id, f"file://{tmp_path}/four", tmp_path / "pulled")
    oracle.pull(everything_snapshot.id, everything_snapshot.url, tmp_path / "expected")
    assert contents(tmp_path / "pulled") == contents(tmp_path / "expected")


def many_small(root: Path) -> None:
    for number in range(20_000):
        folder = root / f"{number % 100:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(random.Random(number).randbytes(4096))


def one_large(root: Path) -> None:
    root.mkdir()
    with (root / "large").open("wb") as file:
        for number in range(1000):
            file.write(random.Random(number).randbytes(MIB))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "s3"), [(many_small, "rclone_memory_s3"), (one_large, "rclone_s3")], indirect=["s3"]
)
@pytest.mark.parametrize("runner", ["embedded", "fleet_of_two"])
def test_large_snapshots_come_around_whole(
    runner: str,
    make: Callable[[Path], None],
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    s3: S3Server,
    tmp_path: Path,
) -> None:
    oracle = Oracle(tmp_path / "cache", environment)
    make(tmp_path / "tree")
    snapshot = oracle.push(tmp_path / "tree", f"file://{tmp_path}/source")

    copy_around(request.getfixturevalue(runner), oracle, s3, f"file://{tmp_path}/source", snapshot, tmp_path)

    oracle.sync(snapshot, f"file://{tmp_path}/source", f"file://{tmp_path}/theirs")
    assert tree(tmp_path / "four") == tree(tmp_path / "theirs")
    Oracle(tmp_path / "fresh", environment).pull(snapshot, f"file://{tmp_path}/four", tmp_path / "pulled")
    assert tree(tmp_path / "pulled") == tree(tmp_path / "tree")
