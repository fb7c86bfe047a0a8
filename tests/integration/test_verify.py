"""A store that is verified by a fleet and by an embedded one: exactly what is wrong is found, with its paths."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, one_store
from snapferry.stores.address import Address, SnapshotId, manifest_key, object_key, parse_address
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import Action, JobSpec, VerifyOptions
from snapferry.workers.settings.environment import Settings
from tests.sample import random_files, tree
from tests.servers import S3Server

from .forge import Forge
from .processes import PATIENCE_S, Fleet, children_of, program, started
from .raw_store import write_raw, write_snapshots
from .test_dead_letters import overlapping_snapshots, places_of
from .test_memory import pss


def damage(root: Path, addresses: list[Address]) -> dict[Address, str]:
    """Make 37 of 50 objects wrong in several ways, and remove the others; return the error that each must give."""
    flipped, cut, emptied, foreign, gone = (
        addresses[:10], addresses[10:20], addresses[20:28], addresses[28:37], addresses[37:50]
    )  # fmt: skip
    for address in flipped:
        data = bytearray((root / object_key(address)).read_bytes())
        data[len(data) // 2] ^= 1
        write_raw(root, object_key(address), bytes(data))
    for address in cut:
        write_raw(root, object_key(address), (root / object_key(address)).read_bytes()[:-1])
    for address in emptied:
        write_raw(root, object_key(address), b"")
    for address, other in zip(foreign, addresses[50:], strict=False):
        write_raw(root, object_key(address), (root / object_key(other)).read_bytes())
    for address in gone:
        (root / object_key(address)).unlink()
    return dict.fromkeys(addresses[:37], "IntegrityError") | dict.fromkeys(gone, "ObjectMissing")


def five_snapshots(root: Path, count: int) -> tuple[list[SnapshotId], list[Address]]:
    """Write five snapshots that share most of *count* objects; return their ids, and addresses in random order."""
    files = random_files(count - 1, size=64)
    first, *others = overlapping_snapshots(files)
    ids = write_snapshots(root, [first, *others, dict(list(first.items())[::2]), files])
    chosen = random.Random(5).sample(sorted({digest(data) for data in files.values() if data}), 80)
    return ids, chosen


def verify_job(root: str, ids: list[SnapshotId] | None, **options: object) -> JobSpec:
    store = one_store(root)
    return JobSpec.of(store, store, ids, action=Action.VERIFY, verify=VerifyOptions(**options))


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_exactly_what_is_wrong_is_found_with_its_paths_though_workers_are_killed(
    redis_url: str, tmp_path: Path, count: int
) -> None:
    ids, chosen = five_snapshots(tmp_path / "a", count)
    wrong = damage(tmp_path / "a", chosen)
    before = tree(tmp_path / "a")
    fleet = Fleet(redis_url, tmp_path, {})
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=count // 20))
    killed: list[int] = []
    with fleet.orchestrator(), fleet.worker("one", "-c", "2") as worker:

        def kill(status: JobStatus) -> None:
            if status.objects_settled and len(killed) < 2 and (children := children_of(worker.process.pid)):
                killed.append(children[0])
                os.kill(children[0], signal.SIGKILL)

        job_id = jobs.submit(verify_job(str(tmp_path / "a"), None))
        status = jobs.wait(job_id, kill, timeout_s=PATIENCE_S)
        letters = {letter.address: letter for letter in jobs.failures(job_id)}
        ids_in_order = [row.id for row in jobs.snapshots(job_id)]

        for address in wrong:
            write_raw(tmp_path / "a", object_key(address), b"still wrong")
        again = jobs.wait(jobs.retry(job_id), timeout_s=PATIENCE_S)

    assert killed
    assert (status.state, status.action) == (State.FAILED, Action.VERIFY)
    assert (status.objects_total, status.present, status.failed) == (count, count - 50, 50)
    assert status.copied == 0
    assert {a: letter.known.failure.error for a, letter in letters.items() if letter.known} == wrong
    places = places_of(tmp_path / "a", ids_in_order)
    assert all(letter.places == places[address] for address, letter in letters.items())
    assert sorted(ids_in_order) == sorted(ids)
    assert {path for path in before if path.startswith(".manifests/")} <= tree(tmp_path / "a").keys()
    assert (again.objects_total, again.failed) == (50, 50)


def test_a_bounded_job_is_resumed_until_everything_was_looked_at(redis_url: str, tmp_path: Path) -> None:
    _, chosen = five_snapshots(tmp_path / "a", 400)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for address in (wrong := set(chosen[:3])):
        write_raw(tmp_path / "a", object_key(address), b"wrong")
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "20"})
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=20))
    seen = runs = 0
    found: set[str] = set()
    with fleet.orchestrator(), fleet.worker("one", "-c", "2"):
        next_job: str | None = jobs.submit(verify_job(str(tmp_path / "a"), None, max_bytes=8_000))
        while next_job is not None:
            status = jobs.wait(next_job, timeout_s=PATIENCE_S)
            runs += 1
            assert status.state in (State.DONE, State.FAILED), status
            # What failed is looked at again by the job that resumes; here it is repaired before.
            failed = {letter.address for letter in jobs.failures(next_job)}
            seen += status.objects_settled - (len(failed) if status.bounded else 0)
            found |= failed
            for address in map(parse_address, failed):
                write_raw(
                    tmp_path / "a", object_key(address), (tmp_path / "b" / object_key(address)).read_bytes()
                )
            next_job = jobs.resume(next_job) if status.bounded else None
            assert runs < 30

    assert runs > 2
    assert (seen, found) == (400, wrong)


def test_the_command_names_what_is_wrong(forge: Forge, tmp_path: Path) -> None:
    ids, chosen = five_snapshots(tmp_path / "a", 400)
    intact = forge.run(["verify", str(tmp_path / "a"), "--all", "--json"])
    assert intact.code == 0, intact.err
    assert intact.document["snapshots"]["verified"] == 5
    before = tree(tmp_path / "a")

    wrong = damage(tmp_path / "a", chosen)
    receipt = tmp_path / "receipt.json"
    found = forge.run(["verify", str(tmp_path / "a"), "--all", "--json", "--receipt", str(receipt)])

    assert found.code == 1
    assert {error["address"]: error["error"] for error in found.document["errors"]} == wrong
    places = places_of(tmp_path / "a", ids)
    assert {
        error["address"]: {(place["snapshot"], place["path"]) for place in error["places"]}
        for error in found.document["errors"]
    } == {address: set(places[address]) for address in wrong}
    account = json.loads(receipt.read_text())
    assert account["action"] == "verify"
    assert [row["state"] for row in account["snapshots"]] == ["failed"] * 5

    fast = forge.run(["verify", str(tmp_path / "a"), *(f"--id={each}" for each in ids), "--fast", "--json"])
    assert fast.code == 1
    assert {error["address"] for error in fast.document["errors"]} == {
        address for address in wrong if address not in {*chosen[:10], *chosen[28:37]}
    }
    for path, data in before.items():
        write_raw(tmp_path / "a", path, data)
    write_raw(tmp_path / "a", manifest_key(ids[1]), b"no manifest")
    unread = forge.run(["verify", str(tmp_path / "a"), "--all", "--fast", "--json"])
    assert (unread.code, unread.document["snapshots"]["failed"]) == (1, 1)
    assert [each["snapshot"] for each in unread.document["unreadable"]] == [ids[1]]
    assert unread.err.count(ids[1]) >= 1
    write_raw(tmp_path / "a", manifest_key(ids[1]), before[manifest_key(ids[1])])
    assert forge.run(["verify", str(tmp_path / "a"), "--all", "--sample", "1/3", "-q"]).code == 0


def test_a_bucket_is_verified(forge: Forge, rclone_s3: S3Server, tmp_path: Path) -> None:
    url = rclone_s3.url(rclone_s3.make_bucket(), "store")
    (snapshot,) = write_snapshots(tmp_path / "a", [random_files(30) | {"./large": os.urandom(9_000_000)}])
    copied = forge.run(
        ["sync", "--from", str(tmp_path / "a"), "--to", url, "--id", snapshot], rclone_s3.environment
    )
    assert copied.code == 0, copied.err

    found = copied
    for options in ([], ["--fast"]):
        found = forge.run(["verify", url, "--all", "--json", *options], rclone_s3.environment)
        assert (found.code, found.document["objects"]["present"]) == (0, 32), found.err
    assert found.document["bytes"]["copied"] == 0


def test_bad_input_is_one_line_and_nothing_is_begun(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, code in [
        (["verify", str(tmp_path / "missing"), "--all"], 1),
        (["verify", str(tmp_path / "empty"), "--all"], 1),
        (["verify", str(tmp_path / "empty")], 2),
        (["verify", str(tmp_path / "empty"), "--all", "--sample", "2/3"], 2),
        (["verify", str(tmp_path / "empty"), "--all", "--detach"], 2),
        (["verify", "ftp://host/store", "--all"], 2),
    ]:
        found = forge.run(arguments)
        assert found.code == code, (arguments, found.err)
        assert len(found.err.splitlines()) == 1
        assert found.out == ""
    assert not (tmp_path / "missing").exists()


@pytest.mark.slow
def test_the_memory_of_a_verify_does_not_grow_with_an_object(tmp_path: Path) -> None:
    """All processes of the command together, the embedded server included, stay below 300 MB."""
    piece = os.urandom(1 << 20)
    (snapshot,) = write_snapshots(tmp_path / "a", [{"./large": piece * 700, "./other": piece[::-1] * 700}])
    most = 0
    log = tmp_path / "log"
    command = [*program(), "verify", str(tmp_path / "a"), "--id", snapshot, "--json", "-j", "2"]
    with started(*command, env={"TMPDIR": str(tmp_path)}, log=log) as running:
        while running.process.poll() is None:
            most = max(most, sum(map(memory, running.family())))
            time.sleep(0.05)
    assert running.process.returncode == 0, log.read_text()
    assert 0 < most < 300_000_000


def memory(process: int) -> int:
    """Return the share of a process in memory, in bytes; 0 if it has ended."""
    try:
        return pss(process)
    except (OSError, AssertionError):
        return 0
