"""The commands about jobs, each by its words and its JSON, on a real fleet."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.queues import Priority
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.sample import make_store, random_files, tree

from .forge import Forge
from .processes import (
    PATIENCE_S,
    REPOSITORY,
    Finished,
    Fleet,
    environment,
    program,
    snapferry,
    started,
    until,
)
from .raw_store import write_raw

ABSENT = "5" * 64
HOSTILE = "./dir/\x1b[2J\x07red"
PRICES = """
currency = "USD"
[[price]]
store = "file://"
egress = 1000.0
"""


@dataclass
class Crew(Fleet):
    """A fleet, and the commands that are given to it."""

    forge: Forge = field(kw_only=True)

    def ask(self, *arguments: str, code: int = 0) -> Finished:
        """Run a command; what comes out of it never steers a terminal."""
        ended = self.run(*arguments)
        assert ended.code == code, (arguments, ended)
        assert "Traceback" not in ended.err
        assert all(character.isprintable() or character == "\n" for character in ended.out + ended.err)
        return ended

    def run(self, *arguments: str) -> Finished:
        """Run a command, however it ends."""
        return self.forge.run(arguments, {"SNAPFERRY_BROKER_URL": self.url, **self.env})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Iterator[Crew]:
    """A fleet that runs, one for all tests of this file: they know their own jobs only."""
    with servers.redis_server() as url:
        folder = tmp_path_factory.mktemp("fleet")
        settings = {"SNAPFERRY_BATCH_OBJECTS": "50", "SNAPFERRY_ACCESS_DELETE": "file:///"}
        found = Crew(url, folder, settings, forge=forge)
        with found.orchestrator(), found.worker():
            yield found


@pytest.fixture
def idle(redis_url: str, tmp_path: Path, forge: Forge) -> Crew:
    """A broker of its own that nobody works for unless the test starts somebody."""
    return Crew(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"}, forge=forge)


def stores(tmp_path: Path) -> list[str]:
    return ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")]


def submit(fleet: Crew, tmp_path: Path, *options: str) -> str:
    return fleet.ask("submit", *stores(tmp_path), *options, "-q").out.strip()


def said_of(words: str, name: str) -> str:
    """Return what a line of ``status`` says of *name*."""
    return next(line.removeprefix(name).strip() for line in words.splitlines() if line.startswith(f"{name} "))


def test_submit_prints_the_id_alone_and_watch_follows_the_job_to_its_end(fleet: Crew, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(120))

    submitted = fleet.ask("submit", *stores(tmp_path), "--id", snapshot)
    job = submitted.out.strip()
    watched = fleet.ask("watch", job[:13])

    assert submitted.out == f"{job}\n"
    assert submitted.err == f"snapferry: follow it: snapferry watch {job}\n"
    assert watched.out.startswith(
        f"snapshot {snapshot} is published: 121 objects, 121 copied (61.4 kB), 0 already"
    )
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_submit_and_watch_in_json_and_a_receipt_in_a_file(fleet: Crew, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))

    submitted = fleet.ask("submit", *stores(tmp_path), "--id", snapshot, "--json", "--quiet")
    job = submitted.document["job"]
    path = tmp_path / "receipt.json"
    path.write_text("what was there before")
    watched = fleet.ask("watch", job, "--json", "--receipt", str(path))

    assert (submitted.document, submitted.err) == ({"job": job}, "")
    assert watched.document["state"] == "done"
    assert watched.document["errors"] == []
    receipt = json.loads(path.read_text())
    assert receipt == fleet.ask("receipt", job).document
    assert (receipt["schema"], receipt["job"], receipt["final"]) == ("snapferry.receipt/1", job, True)
    assert [row["id"] for row in receipt["snapshots"]] == [snapshot]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "receipt.json"]


def test_a_sync_with_checksum_replaces_wrong_bytes_at_the_destination_and_keeps_them(
    fleet: Crew, tmp_path: Path
) -> None:
    files = random_files(120)
    snapshot = make_store(tmp_path / "a", files)
    fleet.ask("sync", *stores(tmp_path), "--id", snapshot)
    corrupt, truncated, gone = (digest(files[name]) for name in sorted(files)[:3])
    write_raw(tmp_path / "b", object_key(corrupt), b"x" * 512)
    write_raw(tmp_path / "b", object_key(truncated), files[sorted(files)[1]][:100])
    (tmp_path / "b" / object_key(gone)).unlink()

    present = fleet.ask("sync", *stores(tmp_path), "--id", snapshot, "--json").document
    compared = fleet.ask(
        "sync",
        *stores(tmp_path),
        "--id",
        snapshot,
        "--checksum",
        "--json",
        "--receipt",
        str(tmp_path / "receipt"),
    ).document
    again = fleet.ask("sync", *stores(tmp_path), "--all", "--checksum", "--json").document

    assert (present["objects"]["copied"], present["objects"]["present"]) == (1, 120)
    assert (compared["objects"]["copied"], compared["objects"]["present"]) == (2, 119)
    assert (again["objects"]["copied"], again["objects"]["present"]) == (0, 121)
    repaired = json.loads((tmp_path / "receipt").read_text())["repaired"]
    assert {(one["address"], one["wrong"]) for one in repaired} == {
        (corrupt, "corrupt"), (truncated, "corrupt"),
    }  # fmt: skip
    assert {one["source"] for one in repaired} == {f"file://{tmp_path}/a"}
    kept = {(tmp_path / "b" / one["quarantined"]).read_bytes() for one in repaired}
    assert kept == {b"x" * 512, files[sorted(files)[1]][:100]}
    found = {path: data for path, data in tree(tmp_path / "b").items() if not path.startswith(".quarantine")}
    assert found == tree(tmp_path / "a")


def test_checksum_and_trust_manifest_exclude_each_other(fleet: Crew, tmp_path: Path) -> None:
    make_store(tmp_path / "a", {"./a": b"a"})

    refused = fleet.ask("sync", *stores(tmp_path), "--all", "--checksum", "--trust-manifest", code=2)
    assert "--trust-manifest" in refused.err


def test_many_snapshots_are_named_in_a_file_by_option_or_as_all(fleet: Crew, tmp_path: Path) -> None:
    ids = [make_store(tmp_path / "a", {"./common": b"c", "./own": bytes([n])}) for n in range(4)]
    (tmp_path / "ids").write_text(f"# of today\n\n{ids[0]}\n  {ids[1]}\r\n")

    first = fleet.run(
        "sync", *stores(tmp_path), "--id", ids[2], "--ids-from", str(tmp_path / "ids"), "--json"
    )
    every = fleet.run("sync", *stores(tmp_path), "--all", "--order", "smallest")
    again = fleet.run("sync", *stores(tmp_path), "--all")
    trusted = fleet.run("sync", *stores(tmp_path), "--all", "--trust-manifest")

    assert first.document["snapshot"] == ids[2]
    assert first.document["snapshots"] == dict.fromkeys(first.document["snapshots"], 0) | {
        "total": 3,
        "published": 3,
    }
    assert first.document["objects"]["copied"] == 4
    assert every.out.startswith(
        "4 of 4 snapshots are published: 5 objects, 1 copied (1 B), 4 already present, in "
    )
    assert again.out.startswith(
        "nothing to copy: all 5 objects already present; 4 of 4 snapshots are published, in "
    )
    assert trusted.out.startswith("nothing to copy: 4 of 4 snapshots are published (4 of them not checked")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_plan_says_what_would_happen_and_costs_and_writes_nothing(fleet: Crew, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(9, size=1000))
    only_there = [make_store(tmp_path / "b", {"./old": bytes([n])}) for n in range(23)]
    (tmp_path / "prices").write_text(PRICES)
    before = tree(tmp_path)
    options = [*stores(tmp_path), "--id", snapshot, "--delete", "--prices", str(tmp_path / "prices")]

    words = fleet.ask("plan", *options)
    dry_run = fleet.run("sync", *options, "--dryrun")
    document = fleet.ask("plan", *options, "--json").document
    job = fleet.ask("submit", *options, "--dryrun", "-q").out.strip()
    watched = fleet.ask("watch", job)

    assert words.out.splitlines()[:5] == [
        "would copy 10 of 10 objects, 9.0 kB of 9.0 kB; 0 already present. Nothing was written.",
        "  snapshots  1",
        "  batches    1",
        "  cost       0.0090 USD",
        "  deletions  would delete 23 manifests at the destination",
    ]
    assert words.out.splitlines()[5:] == [f"    {id_}" for id_ in sorted(only_there)[:20]] + [
        "    and 3 more"
    ]
    assert words.out == dry_run.out == watched.out
    assert document["estimate"]["delete"] == sorted(only_there)
    assert document["objects"]["to_copy"] == document["estimate"]["objects"]["to_copy"] == 10
    assert (document["state"], document["dry_run"]) == ("done", True)
    assert words.out in fleet.ask("status", job).out
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-objects", "9"], "10 objects to copy, more than --max-objects 9"),
        (["--max-bytes", "8.5kB"], "9.0 kB to copy, more than --max-bytes 8,500"),
        (["--max-cost", "0.005"], "0.0090 USD, more than --max-cost 0.005"),
    ],
)
def test_a_budget_that_does_not_suffice_is_one_line_and_nothing_is_written(
    fleet: Crew, tmp_path: Path, options: list[str], said: str
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(9, size=1000))
    (tmp_path / "prices").write_text(PRICES)
    options += ["--prices", str(tmp_path / "prices")]

    ended = fleet.run("sync", *stores(tmp_path), "--id", snapshot, *options)

    assert (ended.code, ended.out) == (1, "")
    reason, advice = ended.err.splitlines()
    assert reason == f"snapferry: failed: over budget: {said}. Nothing was written."
    assert "larger budget" in advice
    assert not (tmp_path / "b").exists()


def test_a_mirror_deletes_what_the_source_does_not_have_and_says_how_much(
    fleet: Crew, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(9))
    old = make_store(tmp_path / "b", {"./old": b"old"})

    few = fleet.run("sync", *stores(tmp_path), "--all", "--delete", "--max-delete", "0")
    done = fleet.run("sync", *stores(tmp_path), "--all", "--delete")

    assert few.code == 1
    assert "nothing was deleted: --delete would delete 1 manifest, more than --max-delete 0" in few.err
    assert done.code == 0
    assert "1 manifest deleted" in done.out
    assert snapferry("ls", str(tmp_path / "b")).out.split() == [snapshot]
    assert (tmp_path / "b" / object_key(digest(b"old"))).read_bytes() == b"old", "never an object"
    assert not (tmp_path / "b" / manifest_key(old)).exists()


def test_status_and_jobs_show_a_job_in_words_and_in_json(fleet: Crew, tmp_path: Path) -> None:
    ids = [make_store(tmp_path / "a", random_files(5, seed=seed)) for seed in range(3)]
    job = submit(fleet, tmp_path, "--all")
    fleet.ask("watch", job, "-q")

    words = fleet.ask("status", job).out
    plain = fleet.ask("status", job, "--json").document
    each = fleet.ask("status", job, "--json", "--snapshots").document
    listed = fleet.ask("jobs", "--json", "--limit", "1").document
    table = fleet.ask("jobs", "--state", "done").out.splitlines()

    assert said_of(words, "job") == job
    assert said_of(words, "state") == "done"
    assert said_of(words, "from") == f"file://{tmp_path}/a"
    assert said_of(words, "snapshots") == "3: 3 published, 0 failed"
    assert said_of(words, "objects") == "16: 16 copied, 0 present, 0 failed"
    assert said_of(words, "bytes") == "7.7 kB: 7.7 kB copied"
    assert said_of(words, "batches") == "3: 3 done"
    assert said_of(words, "ended").endswith("s ago)")
    assert all(f"{snapshot}  published" in words for snapshot in ids)
    assert "per_snapshot" not in plain
    assert sorted(row["id"] for row in each["per_snapshot"]) == sorted(ids)
    assert sum(row["copied"] for row in each["per_snapshot"]) == 16
    assert [each["snapshots"]["published"], each["progress"]["share"]] == [3, 1.0]
    # What its stores keep to, for all jobs together, and who cannot reach them, is asked for one job only.
    none = dict.fromkeys(("bytes_per_second", "objects_in_flight", "requests_per_second"))
    none["requests_by_default"] = False
    assert plain.pop("store_limits") == {"source": none, "destination": none}
    assert plain.pop("unreached") == []
    assert plain.pop("lacks") is None
    assert listed == [plain]
    assert table[0].split() == ["JOB", "STATE", "SNAPSHOTS", "DONE", "BYTES", "WHEN", "FROM", "→", "TO"]
    assert table[1].split()[:6] == [job[:8], "done", "3/3", "100%", "7.7", "kB"]
    assert table[1].endswith(f"file://{tmp_path}/a → file://{tmp_path}/b")
    assert fleet.ask("jobs", "--state", "planning").out == "no job is planning\n"


class Damaged:
    """A source of two snapshots that share an object that is corrupt and one that is gone; and how to repair it."""

    def __init__(self, root: Path) -> None:
        files = {f"./good/{n}": bytes([n]) * 100 for n in range(30)}
        self.files = files | {HOSTILE: b"corrupt", "./copy of it": b"corrupt", "./gone [bold]": b"gone"}
        self.root = root
        self.bad = make_store(root, self.files)
        self.good = make_store(root, files)
        self.corrupt, self.gone = (digest(data) for data in (b"corrupt", b"gone"))
        (root / object_key(self.corrupt)).write_bytes(b"evil")
        (root / object_key(self.gone)).unlink()

    def repair(self) -> None:
        (self.root / object_key(self.corrupt)).write_bytes(b"corrupt")
        (self.root / object_key(self.gone)).write_bytes(b"gone")


def test_failures_name_the_paths_that_wait_and_retry_copies_them_when_they_are_repaired(
    fleet: Crew, tmp_path: Path
) -> None:
    source = Damaged(tmp_path / "a")

    failed = fleet.run("sync", *stores(tmp_path), "--all", "--receipt", str(tmp_path / "receipt"))
    job: str = json.loads((tmp_path / "receipt").read_text())["job"]

    assert failed.code == 1
    lines = failed.err.splitlines()
    assert sorted(line.partition(": ")[0] for line in lines[:2]) == [
        f"  1 x IntegrityError at file://{tmp_path}/a",
        f"  1 x ObjectMissing at file://{tmp_path}/a",
    ]
    assert lines[2].startswith("snapferry: failed: 1 of 2 snapshots is not published: 2 of 32 objects")
    assert lines[3].endswith(f": snapferry retry {job}")
    assert snapferry("ls", str(tmp_path / "b")).out.split() == [source.good]

    words = fleet.ask("failures", job).out
    assert words.startswith(f"2 objects failed in job {job}: 1 IntegrityError, 1 ObjectMissing\n")
    assert f"\n{source.corrupt}  IntegrityError at file://{tmp_path}/a: " in words
    assert f"\n    {source.bad[:8]}  ./dir/\\x1b[2J\\x07red\n" in words
    assert f"\n    {source.bad[:8]}  ./gone [bold]\n" in words
    assert "\n    tried 1 time, last by " in words
    assert "and 1 more" in fleet.ask("failures", job, "--limit", "1").out

    found = {
        (one := json.loads(line))["address"]: one
        for line in fleet.ask("failures", job, "--json").out.splitlines()
    }
    assert found.keys() == {source.corrupt, source.gone}
    corrupt = found[source.corrupt]
    assert (corrupt["error"], corrupt["size"], corrupt["attempts"]) == ("IntegrityError", 7, 1)
    assert corrupt["places"] == [
        {"snapshot": source.bad, "path": "./copy of it"},
        {"snapshot": source.bad, "path": HOSTILE},
    ]
    assert corrupt["places_total"] == 2
    assert "2 failed (1 IntegrityError, 1 ObjectMissing)" in fleet.ask("status", job).out
    assert fleet.ask("watch", job, code=1).err.splitlines() == lines

    still = fleet.ask("retry", job, "--watch", "--json", code=1).document
    assert (still["objects"]["total"], still["objects"]["failed"]) == (2, 2)
    source.repair()
    retried = fleet.ask("retry", job, "--watch")
    assert f"snapshot {source.bad} is published: 2 objects, 2 copied" in retried.out
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_failures_of_a_source_that_cannot_be_read_any_more_are_listed_without_paths(
    fleet: Crew, tmp_path: Path
) -> None:
    source = Damaged(tmp_path / "a")
    job = submit(fleet, tmp_path, "--id", source.bad)
    fleet.ask("watch", job, "-q", code=1)
    (tmp_path / "a").rename(tmp_path / "elsewhere")

    words = fleet.ask("failures", job)
    lines = fleet.ask("failures", job, "--json").out.splitlines()

    assert "ManifestMissing" in words.err or str(tmp_path / "a") in words.err
    assert words.err.count("\n") == 2
    assert f"{source.gone}  ObjectMissing at file://{tmp_path}/a: " in words.out
    assert {json.loads(line)["address"] for line in lines} == {source.gone, source.corrupt}
    assert {json.loads(line)["places"] for line in lines} == {None}


def test_a_job_in_which_nothing_failed_says_so(fleet: Crew, tmp_path: Path) -> None:
    job = submit(fleet, tmp_path, "--id", make_store(tmp_path / "a", random_files(3)))
    fleet.ask("watch", job, "-q")

    assert fleet.ask("failures", job).out == f"no object failed in job {job}\n"
    assert fleet.ask("failures", job, "--json").out == ""
    assert fleet.ask("resume", job).out == f"job {job} is done: nothing is left to do\n"
    assert fleet.ask("resume", job, "--json").document["job"] == job
    assert fleet.ask("retry", job).out == f"job {job} is done: nothing failed in it\n"
    for command in (["cancel"], ["pause"], ["continue"]):
        assert fleet.ask(*command, job).out == f"job {job} has already ended: it is done\n"


def test_a_job_is_paused_continued_cancelled_and_resumed(idle: Crew, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(200))
    job = submit(idle, tmp_path, "--id", snapshot)

    paused = idle.ask("pause", job)
    assert paused.out.endswith(f": snapferry continue {job}\n")
    assert said_of(idle.ask("status", job).out, "state") == "queued, paused"
    assert idle.ask("jobs", "--json").document[0]["paused"] is True
    assert "queued, paused" in idle.ask("jobs").out
    assert idle.ask("resume", job, code=2).err == (
        f"snapferry: job {job} has not ended (queued); cancel it first, or watch it\n"
    )
    part = idle.ask("receipt", job)
    assert (part.document["final"], part.document["state"]) == (False, "queued")
    assert part.err.startswith(f"snapferry: job {job} has not ended: ")

    with idle.orchestrator() as orchestrator:
        until(lambda: "plan_job: paused" in orchestrator.logged(), "the job is held")
        assert idle.ask("continue", job).out == f"job {job} continues\n"
        assert idle.ask("continue", job).out.startswith(f"job {job} was not paused: it is ")
        until(
            lambda: idle.ask("status", job, "--json").document["batches"]["handed_out"] == 5, "batches wait"
        )
        assert idle.ask("cancel", job).out == (
            f"job {job} is cancelled. Copied objects are kept, none is half-written. No snapshot was published."
            f" Resume it to do the rest: snapferry resume {job}\n"
        )
        stopped = idle.ask("watch", job, code=1)
        assert stopped.err.startswith(f"snapferry: job {job} was cancelled\nsnapferry: ")
        assert stopped.err.endswith(f": snapferry resume {job}\n")
        assert stopped.err.count("\n") == 2
        assert idle.ask("cancel", job, "--json").document["state"] == "cancelled"
        assert idle.ask("retry", job, code=2).err.startswith(
            f"snapferry: job {job} ended as cancelled before all of its objects were tried; use: snapferry resume"
        )
        with idle.worker():
            resumed = idle.ask("resume", job).out.strip()
            assert resumed != job
            assert idle.ask("watch", resumed, "--json").document["snapshot"] == snapshot
    assert idle.ask("receipt", resumed).document["resumes"] == job
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_an_interrupted_watch_leaves_the_job_alone_and_an_interrupted_sync_says_how_to_resume(
    idle: Crew, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    env = {"SNAPFERRY_BROKER_URL": idle.url}
    job = submit(idle, tmp_path, "--id", snapshot)
    command = ["sync", *stores(tmp_path), "--id", snapshot, "--receipt", str(tmp_path / "receipt")]

    with redis.Redis.from_url(idle.url, decode_responses=True) as broker:
        broker.config_resetstat()
        looks = lambda: broker.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)  # noqa: E731
        with started(*program(), "watch", job, env=env, log=tmp_path / "watch.log") as watching:
            until(lambda: looks() > 2, "it watches")
            watching.process.send_signal(signal.SIGINT)
            assert watching.process.wait(PATIENCE_S) == 130
            assert watching.logged().endswith(f": snapferry cancel {job}\n")
            assert watching.logged().count("\n") == 1
        assert idle.ask("status", job, "--json").document["state"] == "queued"
        broker.config_resetstat()
        with started(*program(), *command, env=env, log=tmp_path / "sync.log") as running:
            until(lambda: looks() > 2, "it follows its job")
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(PATIENCE_S) == 130
            said = running.logged()

    receipt = json.loads((tmp_path / "receipt").read_text())
    assert receipt["state"] == "cancelled"
    assert said.startswith("snapferry: interrupted. ")
    assert said.endswith(f": snapferry resume {receipt['job']}\n")
    assert said.count("\n") == 1


def test_a_sync_on_a_fleet_that_gets_sigterm_leaves_its_job_alone(idle: Crew, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    command = ["sync", *stores(tmp_path), "--id", snapshot]

    with redis.Redis.from_url(idle.url, decode_responses=True) as broker:
        broker.config_resetstat()
        looks = lambda: broker.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)  # noqa: E731
        env = {"SNAPFERRY_BROKER_URL": idle.url}
        with started(*program(), *command, env=env, log=tmp_path / "sync.log") as running:
            until(lambda: looks() > 2, "it follows its job")
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(PATIENCE_S) == 130
            said = running.logged()

    [job] = idle.ask("jobs", "--json").document
    assert (job["state"], job["cancelling"]) == ("queued", False)
    assert said.startswith("snapferry: terminated; ")
    assert said.endswith(f": snapferry watch {job['job']}\n")


def test_a_job_that_nobody_takes_says_so(idle: Crew, tmp_path: Path) -> None:
    job = submit(idle, tmp_path, "--id", ABSENT)
    with redis.Redis.from_url(idle.url) as broker:
        for name in ("submitted_at", "moved_at"):
            broker.hincrbyfloat(f"snapferry:job:{job}", name, -60)

    words = idle.ask("status", job).out

    assert "no orchestrator is running" in words
    assert f"{ABSENT}  pending" in words


def test_a_beginning_of_an_id_that_several_jobs_have_is_refused(idle: Crew) -> None:
    ledger = Ledger(client(idle.url), expires_s=3600)
    pair = {"source": StoreRef(url="file:///a"), "destination": StoreRef(url="file:///b")}
    for number in range(2):
        ledger.create(JobSpec(job_id=f"12345678-{number}", batch_objects=1, batch_bytes=1, **pair))

    refused = idle.ask("status", "1234", code=2)

    assert refused.err == "snapferry: 1234 matches 2 jobs; give more digits of the id\n"
    assert said_of(idle.ask("status", "12345678-1").out, "job") == "12345678-1"


COMMANDS = ["status", "watch", "cancel", "pause", "continue", "failures", "retry", "resume", "receipt"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_job_that_the_broker_does_not_know_is_one_line(idle: Crew, command: str) -> None:
    for job in ("1234", "no\x1b[31m", ""):
        ended = idle.ask(command, job, code=2)
        shown = job.replace("\x1b", "\\x1b")
        # An empty id is probably that of a variable that is not set.
        begins = f"job {shown} not found at {idle.url}: " if job else "the id of the job is empty"
        assert ended.out == ""
        assert ended.err.startswith(f"snapferry: {begins}")
        assert ended.err.count("\n") == 1


def test_a_priority_that_there_is_not_is_one_line(idle: Crew) -> None:
    for level in (["urgent"], []):
        ended = idle.ask("priority", "1234", *level, code=2)
        assert ended.out == ""
        assert ended.err.count("\n") == 1
        assert all(each in ended.err for each in Priority)


def test_a_job_of_another_version_is_one_line(idle: Crew, tmp_path: Path) -> None:
    job = submit(idle, tmp_path, "--id", ABSENT)
    with redis.Redis.from_url(idle.url, decode_responses=True) as broker:
        request: dict[str, Any] = json.loads(broker.hget(f"snapferry:job:{job}", "request") or "")
        text = json.dumps(request | {"version": 99})
        broker.hset(f"snapferry:job:{job}", mapping={"request": text, "state": "failed"})

    for command in ("receipt", "retry", "resume"):
        ended = idle.ask(command, job, code=2)
        assert ended.out == ""
        assert ended.err.startswith(f"snapferry: job {job} ")
        assert "another version of snapferry" in ended.err
        assert ended.err.count("\n") == 1


def test_what_commands_print_is_what_the_python_api_says(fleet: Crew, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    jobs = Jobs(Settings(broker_url=fleet.url))
    job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
    assert jobs.wait(job, timeout_s=PATIENCE_S).state is State.DONE

    assert fleet.ask("receipt", job).document == jobs.receipt(job)


def test_on_a_terminal_tables_keep_their_figures_and_fold_what_is_long(idle: Crew, tmp_path: Path) -> None:
    job = submit(idle, tmp_path / "[bold]", "--id", ABSENT)
    env = environment({"SNAPFERRY_BROKER_URL": idle.url, "TERM": "xterm", "COLUMNS": "90"})

    shown = {}
    for command in (["jobs"], ["status", job]):
        master, slave = pty.openpty()
        with subprocess.Popen([*program(), *command], env=env, stdout=slave, cwd=REPOSITORY) as process:
            os.close(slave)
            text = b""
            with suppress(OSError):  # the terminal is closed when its last writer ends
                while chunk := os.read(master, 4096):
                    text += chunk
        os.close(master)
        assert process.returncode == 0
        shown[command[0]] = text.decode()

    assert f"{job[:8]}  queued        0/1     -    0 B" in shown["jobs"]
    # The last column alone is folded, so without white space its pieces follow each other.
    assert "/[bold]/" in "".join(shown["jobs"].split())
    assert "pending" in shown["status"]
    assert "…" not in shown["jobs"] + shown["status"]
