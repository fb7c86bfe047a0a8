"""The command pull, on a fleet of its own and on a real fleet whose workers die on the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import Action, JobSpec, TreeOptions, encode_addresses
from snapferry.workers.settings.environment import Settings
from tests.golden.oracle import Oracle
from tests.golden.trees import everything
from tests.sample import make_store
from tests.servers import S3Server

from .forge import Forge
from .processes import Fleet, snapferry

PATIENCE_S = 240

# A process dies at its 50th file, and before and after files become visible: once each in all.
DYING = """
import os, signal
from snapferry.stores.backends.tree.writing.target import TreeTarget as T
def once(point):
    try:
        os.close(os.open({folder!r} + "/died-" + point, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
uploads, upload, commit = 0, T.upload, T.commit_all
def uploading(self, *arguments):
    global uploads
    uploads += 1
    if uploads == 50:
        once("upload")
    return upload(self, *arguments)
def committing(self, *arguments):
    once("before")
    commit(self, *arguments)
    once("after")
T.upload, T.commit_all = uploading, committing
"""


def described(tree: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return path -> mode with type, and bytes, of all that is in *tree*."""
    found: dict[str, tuple[int, bytes | None]] = {}
    for path in [tree, *tree.rglob("*")]:
        mode = path.lstat().st_mode
        found[str(path.relative_to(tree))] = mode, path.read_bytes() if stat.S_ISREG(mode) else None
    return found


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_what_snapdir_pushed_is_pulled_as_snapdir_does(
    forge: Forge, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment: dict[str, str] = {}
    ours = theirs = f"file://{tmp_path}/store"
    if kind == "s3":
        server: S3Server = request.getfixturevalue("rclone_s3")
        bucket = server.make_bucket()
        environment = {**server.environment, "SNAPDIR_S3_STORE_ENDPOINT_URL": server.endpoint}
        ours, theirs = server.url(bucket, "prefix"), f"s3://{bucket}/prefix"
    oracle = Oracle(tmp_path / "cache", environment)
    (tmp_path / "tree").mkdir()
    everything(tmp_path / "tree")
    snapshot = oracle.push(tmp_path / "tree", theirs)
    Oracle(tmp_path / "empty", environment).pull(snapshot, theirs, tmp_path / "theirs")
    dest = tmp_path / "ours"
    command = ["pull", "--from", ours, str(dest), "--json"]

    first = forge.run([*command, "--id", snapshot], env=environment)
    assert first.code == 0, first.err
    assert described(dest) == described(tmp_path / "theirs")
    files = first.document["objects"]["total"]
    assert (
        first.document["objects"]["copied"]
        == files
        == sum(data is not None for _, data in described(dest).values())
    )

    (dest / "nested" / "B").write_bytes(b"CAPITAL")
    (dest / "nested" / "a.txt").unlink()
    (dest / "stranger").mkdir()
    dry = forge.run([*command, "--id", snapshot[:10], "--dryrun", "--delete"], env=environment)
    assert (dry.code, dry.document["objects"]["to_copy"]) == (0, 2)
    again = forge.run([*command, "--id", "latest", "--delete"], env=environment)
    assert (again.code, again.document["objects"]["copied"], again.document["deleted"]) == (0, 2, 1)
    assert described(dest) == described(tmp_path / "theirs")


def test_bad_input_is_one_line_and_writes_nothing(forge: Forge, tmp_path: Path) -> None:
    text = render([Entry("F", "644", digest(b"x"), 1, "./../outside")])
    found = tmp_path / "store" / manifest_key(snapshot_id(text))
    found.parent.mkdir(parents=True)
    (tmp_path / "store" / ".objects").mkdir()
    found.write_bytes(text)
    (tmp_path / "file").write_bytes(b"a file")
    pull = ["pull", "--from", str(tmp_path / "store"), "--id", snapshot_id(text)]

    hostile = forge.run([*pull, str(tmp_path / "dest")])
    on_a_file = forge.run([*pull, str(tmp_path / "file")])
    inside = forge.run([*pull, str(tmp_path / "store" / "tree"), "--delete"])
    around = forge.run([*pull, str(tmp_path), "--delete"])
    unknown = forge.run(["pull", "--from", str(tmp_path / "store"), "--id", "0" * 64, str(tmp_path / "dest")])

    assert [each.code for each in (hostile, on_a_file, inside, around, unknown)] == [1, 2, 2, 2, 1]
    for each in (hostile, on_a_file, inside, around, unknown):
        assert len(each.err.strip().splitlines()) == 1, each.err
    assert sorted(os.listdir(tmp_path)) == ["file", "store"]


def test_a_pull_is_queued_for_the_fleet_on_request(forge: Forge, redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "store", {"./f": b"1"})
    pull = ["pull", "--from", str(tmp_path / "store"), "--id", snapshot, str(tmp_path / "dest"), "--detach"]

    queued = forge.run([*pull, "--json", "--delete", "--broker", redis_url])
    assert queued.code == 0, queued.err
    spec = Ledger(client(redis_url), expires_s=60).spec(queued.document["job"])
    assert (spec.action, spec.destination.url, spec.tree.delete, spec.snapshot_ids) == (
        Action.PULL,
        f"tree://{tmp_path}/dest",
        True,
        [snapshot],
    )
    for refused in (pull, [*pull, "--broker", redis_url, "--receipt", str(tmp_path / "receipt")]):
        ended = forge.run(refused)
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1), ended.err
    assert not (tmp_path / "dest").exists()


@pytest.mark.slow
def test_a_fleet_pulls_to_trees_that_it_names_while_workers_die(redis_url: str, tmp_path: Path) -> None:
    tree, dest = tmp_path / "tree", tmp_path / "dest"
    tree.mkdir()
    for number in range(600):
        (tree / f"{number % 7}").mkdir(exist_ok=True)
        (tree / f"{number % 7}" / f"{number}").write_bytes(b"%d" % number * 50)
    (tree / "3").chmod(0o555)
    store = f"file://{tmp_path}/store"
    pushed = snapferry("push", "-q", str(tree), "--to", store)
    assert pushed.code == 0, pushed.err
    (tmp_path / "points").mkdir()
    source, destination = store_pair(store, f"tree://{dest}")
    spec = JobSpec(
        action=Action.PULL,
        source=source,
        destination=destination,
        snapshots=encode_addresses([pushed.out.strip()]),
        tree=TreeOptions(delete=True),
        batch_objects=40,
    )
    (tmp_path / "snapferry.toml").write_text(f'[access]\nread = ["{store}"]\nwrite = ["tree://{dest}"]\n')
    environment = {"SNAPFERRY_CONFIG": str(tmp_path / "snapferry.toml")}
    fleet = Fleet(redis_url, tmp_path, environment)
    jobs = Jobs(Settings(broker_url=redis_url))
    dying = DYING.format(folder=str(tmp_path / "points"))
    with fleet.orchestrator(), fleet.worker("one", before=dying), fleet.worker("two", before=dying):
        done = jobs.wait(jobs.submit(spec), timeout_s=PATIENCE_S)
        elsewhere = store_pair(store, f"tree://{tmp_path}/elsewhere")[1]
        refused = jobs.wait(jobs.submit(spec.successor(destination=elsewhere)), timeout_s=PATIENCE_S)
        lacking = tmp_path / "store" / object_key(digest(b"7" * 50))
        lacking.rename(tmp_path / "away")
        (dest / "0" / "7").write_bytes(b"8" * 50)
        (dest / "0" / "14").unlink()
        failed = jobs.wait(jobs.submit(spec.successor()), timeout_s=PATIENCE_S)
        letters = list(jobs.failures(failed.job_id))
        (tmp_path / "away").rename(lacking)
        retried = jobs.wait(jobs.retry(failed.job_id), timeout_s=PATIENCE_S)
        receipt = jobs.receipt(retried.job_id)

    assert done.state is State.DONE, done.error
    assert described(dest) == described(tree)
    assert len(os.listdir(tmp_path / "points")) == 3
    assert (failed.state, failed.copied, failed.present, failed.failed) == (State.FAILED, 1, 598, 1)
    assert [letter.places for letter in letters] == [[(spec.snapshot_ids[0], "./0/7")]]
    assert (retried.state, retried.copied, retried.present) == (State.DONE, 1, 599)
    assert [row["state"] for row in receipt["snapshots"]] == ["fetched"]
    assert refused.state is State.FAILED
    assert not (tmp_path / "elsewhere").exists()
