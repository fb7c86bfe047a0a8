"""
Objects that cannot be copied, among thousands that can.

All others arrive, exactly those are listed with the paths that they hold up,
and after the source is repaired a retry copies just them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.parse import parse
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import FAILURES_KEPT, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import assert_published_means_complete, random_files, tree

from .processes import PATIENCE_S, Fleet
from .raw_store import write_raw, write_snapshots

Places = Mapping[str, Sequence[tuple[str, str]]]


def places_of(root: Path, ids: Sequence[str]) -> Places:
    """Read the manifests line by line: address -> (snapshot id, path), in the order of *ids*."""
    found = defaultdict(list)
    for snapshot_id in ids:
        for entry in parse(open_store(str(root)).get_manifest(snapshot_id)):
            if entry.type == "F":
                found[entry.checksum].append((snapshot_id, entry.path))
    return found


def redis_bytes(url: str, job_id: str) -> int:
    """Return how much memory Redis spends on a job."""
    with redis.Redis.from_url(url) as client:
        return sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(f"*{job_id}*"))


def overlapping_snapshots(files: Mapping[str, bytes]) -> list[dict[str, bytes]]:
    """Return three snapshots that share 80 % of *files*, the last one with copies of some under other names."""
    names = sorted(files)
    tenth = len(names) // 10
    first, second, third = names[: -2 * tenth], names[tenth:-tenth], names[2 * tenth :]
    copies = {f"./again/{number}": files[name] for number, name in enumerate(third[::7])}
    return [
        {name: files[name] for name in first},
        {name: files[name] for name in second},
        {name: files[name] for name in third} | copies,
    ]


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_what_cannot_be_copied_is_listed_with_its_paths_and_retried_alone(
    redis_url: str, tmp_path: Path, count: int
) -> None:
    files = random_files(count - 1, size=64)
    chosen = random.Random(2).sample(sorted(set(files) - {"./empty"}), 100)
    corrupt, missing = ({digest(files[name]) for name in part} for part in (chosen[:50], chosen[50:]))
    bad = corrupt | missing
    healthy = {name: files[name] for name in sorted(set(files).difference(chosen))[: count // 20]}
    ids = write_snapshots(tmp_path / "a", [*overlapping_snapshots(files), healthy])
    sound = tree(tmp_path / "a")
    for address in corrupt:
        write_raw(tmp_path / "a", object_key(address), b"x" * 64)
    for address in missing:
        (tmp_path / "a" / object_key(address)).unlink()
    settings = {"batch_objects": count // 20}
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": str(settings["batch_objects"])})
    jobs = Jobs(Settings(broker_url=redis_url, **settings))
    destination = open_store(str(tmp_path / "b"))
    with fleet.orchestrator(), fleet.worker():
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), ids))
        failed = jobs.wait(job_id, timeout_s=300)

        assert failed.state is State.FAILED, failed
        assert (failed.objects_total, failed.copied, failed.failed) == (count, count - 100, 100)
        assert failed.objects_settled == count
        assert destination.list_manifest_ids() == [ids[3]]
        assert_published_means_complete(destination)
        arrived = tree(tmp_path / "b")
        assert arrived == {
            path: data
            for path, data in sound.items()
            if path not in {object_key(address) for address in bad}
            and (path.startswith(".objects/") or path.endswith(ids[3][9:]))
        }
        letters = {letter.address: letter for letter in jobs.failures(job_id)}
        assert letters.keys() == bad
        places = places_of(tmp_path / "a", ids)
        for letter in letters.values():
            assert letter.known is not None
            assert letter.known.failure.error == (
                "IntegrityError" if letter.address in corrupt else "ObjectMissing"
            )
            assert letter.known.worker.startswith("worker@")
            assert letter.known.attempts == 1
            assert letter.places == places[letter.address]
            assert letter.places_total == len(places[letter.address])
            assert letter.size_bytes == 64
        assert {len(letter.places) for letter in letters.values()} > {1, 3}
        assert jobs.failed_by_class(job_id) == {"IntegrityError": 50, "ObjectMissing": 50}
        assert [row.state for row in jobs.snapshots(job_id)] == ["failed"] * 3 + ["published"]
        assert redis_bytes(redis_url, job_id) < 100_000

        for address in bad:
            write_raw(tmp_path / "a", object_key(address), sound[object_key(address)])
        retried = jobs.wait(jobs.retry(job_id), timeout_s=300)

    assert retried.state is State.DONE, retried
    assert (retried.objects_total, retried.copied, retried.present) == (100, 100, 0)
    assert retried.batches_total == -(-100 // settings["batch_objects"])
    assert retried.snapshots_published == 3
    assert tree(tmp_path / "b") == sound
    assert_published_means_complete(destination)


@pytest.mark.slow
def test_thousands_of_failures_are_all_listed_and_redis_keeps_a_bounded_number(
    redis_url: str, tmp_path: Path
) -> None:
    files = random_files(3_100, size=64)
    (snapshot,) = write_snapshots(tmp_path / "a", [files])
    gone = {digest(files[name]) for name in sorted(set(files) - {"./empty"})[:3_000]}
    for address in gone:
        (tmp_path / "a" / object_key(address)).unlink()
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "250"})
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=250))
    with fleet.orchestrator(), fleet.worker():
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert (status.state, status.failed, status.copied) == (State.FAILED, 3_000, 101), status
    letters = list(jobs.failures(job_id))
    assert {letter.address for letter in letters} == gone
    assert len(letters) == 3_000
    known = [letter.known for letter in letters if letter.known is not None]
    assert len(known) == FAILURES_KEPT == 1_000
    assert {failed.failure.error for failed in known} == {"ObjectMissing"}
    places = places_of(tmp_path / "a", [snapshot])
    assert all(letter.places == places[letter.address] for letter in letters)
    assert jobs.failed_by_class(job_id) == {"ObjectMissing": 3_000}
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(f"snapferry:job:{job_id}:failures") == FAILURES_KEPT
    assert redis_bytes(redis_url, job_id) < 1_000_000
