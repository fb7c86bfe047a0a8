"""
A store with wrong and missing objects is healed on a real fleet, whose workers die on the way.

The second store has other objects wrong.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import EMPTY_ADDRESS, QUARANTINE, Address, manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, JobSpec
from snapferry.workers.settings.environment import Settings
from tests.conformance.replacing_contract import read_whole
from tests.opening import open_store
from tests.sample import assert_published_means_complete, fill, make_store, random_files, tree
from tests.servers import S3Server

from .forge import Forge
from .processes import Fleet
from .raw_store import write_raw, write_snapshots
from .test_dead_letters import places_of

CORRUPT, MISSING = 37, 13

# A process dies at its 100th, 200th and 300th check, and before and after an object is replaced: once each in all.
DYING = """
import os, signal
from snapferry.stores.snapshot_store import SnapshotStore as S
def once(point):
    try:
        os.close(os.open({folder!r} + "/died-" + point, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
checks, check, replace = 0, S.check_object, S.replace_object
def checking(self, *arguments, **options):
    global checks
    checks += 1
    if checks % 100 == 0 and checks <= 300:
        once(f"check-{{checks}}")
    return check(self, *arguments, **options)
def replacing(self, *arguments, **options):
    once("before")
    done = replace(self, *arguments, **options)
    once("after")
    return done
S.check_object, S.replace_object = checking, replacing
"""


def five_snapshots(files: dict[str, bytes]) -> list[dict[str, bytes]]:
    """Return snapshots that share most of *files*: each has four of five parts."""
    names = sorted(files)
    return [
        {name: files[name] for number, name in enumerate(names) if number % 5 != left} for left in range(5)
    ]


def spoil(
    root: Path, addresses: list[Address], bodies: dict[Address, bytes]
) -> tuple[set[Address], set[Address]]:
    """Spoil objects in the store at *root*; return the corrupt and the missing ones."""
    corrupt, missing = addresses[:CORRUPT], addresses[CORRUPT : CORRUPT + MISSING]
    for number, address in enumerate(corrupt):
        data = bodies[address]
        flipped = data[:-1] + bytes([data[-1] ^ (1 << number % 8)])
        wrong = (flipped, data[: len(data) // 2], b"", bodies[addresses[number - 1]])[number % 4]
        write_raw(root, object_key(address), wrong)
    for address in missing:
        (root / object_key(address)).unlink()
    return set(corrupt), set(missing)


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_store_is_healed_from_one_that_has_other_objects_wrong_while_workers_die(
    redis_url: str, tmp_path: Path, count: int
) -> None:
    files = random_files(count - 1, size=64)
    bodies = {digest(data): data for data in files.values()}
    ids = write_snapshots(tmp_path / "a", five_snapshots(files))
    assert write_snapshots(tmp_path / "b", five_snapshots(files)) == ids
    before = tree(tmp_path / "a")
    addresses = sorted(bodies.keys() - {EMPTY_ADDRESS})
    random.Random(5).shuffle(addresses)
    corrupt, missing = spoil(tmp_path / "a", addresses, bodies)
    spoil(tmp_path / "b", addresses[CORRUPT + MISSING :], bodies)
    settings = {"batch_objects": count // 20}
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": str(count // 20)})
    jobs = Jobs(Settings(broker_url=redis_url, **settings))
    source, store = store_pair(str(tmp_path / "b"), str(tmp_path / "a"))
    dying = DYING.format(folder=str(tmp_path))
    verify = JobSpec.of(store, store, ids, action=Action.VERIFY)

    with fleet.orchestrator(), fleet.worker("one", before=dying), fleet.worker("two", before=dying):
        found = jobs.wait(jobs.submit(verify), timeout_s=600)
        letters = {letter.address: letter for letter in jobs.failures(found.job_id)}
        job = jobs.submit(JobSpec.of(source, store, ids, action=Action.HEAL))
        healed = jobs.wait(job, timeout_s=600)
        again = jobs.wait(jobs.submit(JobSpec.of(source, store, None, action=Action.HEAL)), timeout_s=600)

        clean = jobs.wait(jobs.submit(verify.successor()), timeout_s=600)
        # The last object is wrong in both stores.
        hopeless, _ = spoil(tmp_path / "a", addresses[-1:], bodies)
        spoil(tmp_path / "b", addresses[-1:], bodies)
        failed = jobs.wait(jobs.submit(JobSpec.of(source, store, ids, action=Action.HEAL)), timeout_s=600)
        for address in hopeless:
            write_raw(tmp_path / "b", object_key(address), bodies[address])
        retried = jobs.wait(jobs.retry(failed.job_id), timeout_s=600)

    assert (found.state, found.failed, found.present) == (
        State.FAILED,
        CORRUPT + MISSING,
        count - CORRUPT - MISSING,
    )
    assert letters.keys() == corrupt | missing
    places = places_of(tmp_path / "b", ids)
    for wrong, letter in letters.items():
        assert letter.known is not None
        assert letter.known.failure.error == ("IntegrityError" if wrong in corrupt else "ObjectMissing")
        assert letter.places == places[wrong]
    assert (clean.state, clean.failed, clean.present) == (State.DONE, 0, count)
    assert (failed.state, failed.copied, failed.failed) == (State.FAILED, 0, 1)
    assert (retried.state, retried.objects_total, retried.copied) == (State.DONE, 1, 1)
    assert (healed.state, healed.error) == (State.DONE, "")
    assert len(list(tmp_path.glob("died-*"))) == 5
    assert (healed.copied, healed.present) == (CORRUPT + MISSING, count - CORRUPT - MISSING)
    assert (again.state, again.copied, again.present) == (State.DONE, 0, count)
    now = {path: data for path, data in tree(tmp_path / "a").items() if "/.tmp-" not in path}
    assert {path: data for path, data in now.items() if not path.startswith(QUARANTINE)} == before
    repaired = jobs.receipt(job)["repaired"]
    assert {one["address"] for one in repaired if one["wrong"] == "corrupt"} == corrupt
    assert {one["address"] for one in repaired if one["wrong"] == "missing"} == missing
    # A worker that is killed between the repair and the report leaves the source of one object open.
    assert [one["source"] for one in repaired].count(f"file://{tmp_path}/b") >= CORRUPT + MISSING - 1
    assert_published_means_complete(open_store(str(tmp_path / "a")))


def test_the_command_heals_without_a_fleet_from_several_stores(forge: Forge, tmp_path: Path) -> None:
    files = random_files(60)
    snapshot = make_store(tmp_path / "a", files)
    for name in ("b", "c"):
        make_store(tmp_path / name, files)
    before = tree(tmp_path / "a")
    first, second, third, fourth = (object_key(digest(files[name])) for name in sorted(files)[:4])
    write_raw(tmp_path / "a", first, b"wrong")
    write_raw(tmp_path / "a", second, files[sorted(files)[1]][:100])
    (tmp_path / "a" / third).unlink()
    write_raw(tmp_path / "a", manifest_key(snapshot), b"wrong")
    write_raw(tmp_path / "b", first, b"wrong")
    write_raw(tmp_path / "b", manifest_key(snapshot), b"wrong")
    (tmp_path / "c" / second).unlink()
    sources = ["--from", str(tmp_path / "b"), "--from", str(tmp_path / "c")]
    receipt = tmp_path / "receipt.json"

    healed = forge.run(["heal", str(tmp_path / "a"), *sources, "--all", "--json", "--receipt", str(receipt)])
    again = forge.run(["heal", str(tmp_path / "a"), *sources, "--id", snapshot[:8]])

    assert (healed.code, again.code) == (0, 0), (healed, again)
    assert healed.document["objects"]["copied"] == 3
    assert {
        path: data for path, data in tree(tmp_path / "a").items() if not path.startswith(QUARANTINE)
    } == before
    repaired = {object_key(one["address"]): one for one in json.loads(receipt.read_text())["repaired"]}
    assert {key: (one["wrong"], one["source"].rpartition("/")[2]) for key, one in repaired.items()} == {
        first: ("corrupt", "c"), second: ("corrupt", "b"), third: ("missing", "b"),
    }  # fmt: skip

    write_raw(tmp_path / "a", fourth, b"wrong")
    for name in ("b", "c"):
        (tmp_path / name / fourth).unlink()
    hopeless = forge.run(["heal", str(tmp_path / "a"), *sources, "--all"])
    assert hopeless.code == 1
    assert "Traceback" not in hopeless.err
    assert (tmp_path / "a" / fourth).read_bytes() == b"wrong"


def test_a_store_of_two_pools_is_healed_from_another_of_two_pools(forge: Forge, tmp_path: Path) -> None:
    files = random_files(20)
    pools = [(tmp_path / f"{name}-manifests", tmp_path / f"{name}-objects") for name in "ab"]
    snapshot, _ = (fill(open_store(str(manifests), str(objects)), files) for manifests, objects in pools)
    (manifests, objects), (from_manifests, from_objects) = pools
    before = tree(objects), tree(manifests)
    write_raw(objects, object_key(digest(files[min(files)])), b"wrong")
    write_raw(manifests, manifest_key(snapshot), b"wrong")

    healed = forge.run(
        [
            "heal",
            str(manifests),
            "--objects",
            str(objects),
            "--from",
            str(from_manifests),
            "--from-objects",
            str(from_objects),
            "--id",
            snapshot,
        ]
    )

    assert healed.code == 0, healed
    kept = [
        {path: data for path, data in tree(pool).items() if path.startswith(QUARANTINE)}
        for pool in (objects, manifests)
    ]
    assert [list(one.values()) for one in kept] == [[b"wrong"], [b"wrong"]]
    assert (tree(objects), tree(manifests)) == (before[0] | kept[0], before[1] | kept[1])


def test_a_bucket_is_healed_from_a_directory_and_keeps_the_wrong_bytes(
    forge: Forge, tmp_path: Path, rclone_memory_s3: S3Server
) -> None:
    files = random_files(30)
    url = rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "store")
    bucket = open_store(url)
    snapshot = fill(bucket, files)
    make_store(tmp_path / "b", files)
    wrong, gone = (digest(files[name]) for name in sorted(files)[:2])
    bucket.objects.write(object_key(wrong), b"wrong")
    bucket.objects.delete(object_key(gone))
    bucket.manifests.write(manifest_key(snapshot), b"a wrong manifest")

    healed = forge.run(
        ["heal", url, "--from", str(tmp_path / "b"), "--all"], env=rclone_memory_s3.environment
    )

    assert healed.code == 0, healed
    assert_published_means_complete(bucket)
    kept = [key for key, *_ in bucket.objects.keys(QUARANTINE)]
    assert sorted(read_whole(bucket.objects, key) for key in kept) == [b"a wrong manifest", b"wrong"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--all"],
        ["--from", "{b}"],
        ["--from", "{a}", "--all"],
        ["--from", "{b}", "--from", "{b}/", "--all"],
        ["--from", "{b}", "--all", "--id", "5" * 64],
        ["--from", "nosuch://x", "--all"],
        ["--from", "{b}", "--all", "--detach"],
    ],
)
def test_a_request_that_makes_no_sense_ends_with_one_line(
    forge: Forge, tmp_path: Path, arguments: list[str]
) -> None:
    make_store(tmp_path / "a", {"./a": b"a"})
    given = [one.format(a=tmp_path / "a", b=tmp_path / "b") for one in arguments]

    ended = forge.run(["heal", str(tmp_path / "a"), *given])

    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    assert ended.out == ""
