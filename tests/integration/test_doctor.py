"""The doctor on real fleets: what is wrong with them is told, and they are afterwards as they were before."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger.keys import job_key
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files, tree
from tests.servers import free_port

from .forge import Forge
from .own_redis import OwnRedis, own_redis
from .processes import REPOSITORY, Finished, Fleet, environment, program, until

# A worker of another time and place: its clock, its version and a setting are not the others'.
ODD = """
import os, time
os.environ["SNAPFERRY_VISIBILITY_TIMEOUT"] = "60"
import snapferry.workers.diagnosis.remote_control
now = time.time
class Clock:
    time = staticmethod(lambda: now() - 400)
snapferry.workers.diagnosis.remote_control.time = Clock
snapferry.workers.diagnosis.remote_control.VERSION = 2
"""
# A worker from before there was a doctor.
OLD = """
import snapferry.workers.diagnosis.remote_control
snapferry.workers.diagnosis.remote_control.register = lambda *_: None
"""
# A worker on a machine whose mounts are not there.
WITHOUT_MOUNT = """
import subprocess, sys
real = subprocess.Popen
def elsewhere(command, **options):
    if "snapferry.workers.diagnosis.store_check" in command:
        command = [sys.executable, "-c", '''
import os, runpy, sys
exists, lexists = os.stat, os.path.lexists
def hidden(path): return "/shared" in str(path)
def stat(path, *rest, **options):
    if hidden(path): raise FileNotFoundError(2, "No such file or directory", str(path))
    return exists(path, *rest, **options)
os.stat = stat
os.path.lexists = lambda path: not hidden(path) and lexists(path)
sys.argv = ["snapferry.workers.diagnosis.store_check"]
runpy.run_module("snapferry.workers.diagnosis.store_check", run_name="__main__")
''']
    return real(command, **options)
subprocess.Popen = elsewhere
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis as it should be."""
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as found:
        yield found


def content(url: str) -> dict[str, Any]:
    """Return all that a Redis holds, but for what a fleet writes by itself (deadlines, marks, rosters, a lock)."""
    with redis.Redis.from_url(url) as client:
        found = {key: client.dump(key) for key in client.scan_iter()}
    own = (
        b"_kombu.binding_deadlines",
        b"snapferry:mark:",
        b"snapferry:workers",
        b"snapferry:watcher",
        b"snapferry:orchestrators",
    )
    return {key: value for key, value in found.items() if not key.startswith(own)}


ALLOWED = {"SNAPFERRY_ACCESS_READ": "file:///", "SNAPFERRY_ACCESS_WRITE": "file:///"}


def examined(forge: Forge, *arguments: str, env: dict[str, str] | None = None) -> Finished:
    """Run the doctor; what it says is one document, and no traceback."""
    ended = forge.run(["doctor", "--json", *arguments], env)
    assert "Traceback" not in ended.err
    return ended


def told(ended: Finished, *levels: str) -> dict[str, str]:
    """Return what was said of each check that came out as one of *levels*."""
    checks = ended.document["checks"]
    return {
        f"{one['node'].partition('@')[0]}: {one['check']}" if one["node"] else one["check"]: one["said"]
        for one in checks
        if one["level"] in levels
    }


def test_a_fleet_in_order_is_told_so_and_nothing_is_left_anywhere(
    server: OwnRedis, tmp_path: Path, forge: Forge
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(5))
    (tmp_path / "b").mkdir()
    before = tree(tmp_path / "a")
    fleet = Fleet(server.url, tmp_path, ALLOWED)
    with fleet.orchestrator(), fleet.worker():
        in_redis = content(server.url)
        ended = examined(
            forge,
            *("--broker", server.url, "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")),
            *("--id", snapshot),
        )

        assert content(server.url) == in_redis
    assert ended.code == 0, ended.out
    assert told(ended, "warning", "error") == {}
    assert ended.document["healthy"] is True
    nodes = {one["node"].partition("@")[0] for one in ended.document["checks"] if one["node"]}
    assert nodes == {"worker", "orchestrator"}
    fine = told(ended, "ok")
    assert set(fine) >= {
        *("broker.answers", "broker.policy", "broker.persistence", "broker.writes", "fleet.workers"),
        *("fleet.orchestrators", "fleet.versions", "fleet.settings", "clock", "jobs", "source.object"),
        *("worker: source.object", "worker: store.write", "orchestrator: source.manifest", "pair.space"),
    }
    assert tree(tmp_path / "a") == before
    assert list((tmp_path / "b").iterdir()) == []


def test_nodes_that_differ_are_named(server: OwnRedis, tmp_path: Path, forge: Forge) -> None:
    make_store(tmp_path / "shared" / "a", random_files(3))
    (tmp_path / "shared" / "b").mkdir()
    fleet = Fleet(server.url, tmp_path, ALLOWED)
    with (
        fleet.worker("odd", before=ODD),
        fleet.worker("old", before=OLD),
        fleet.worker("bare", before=WITHOUT_MOUNT),
    ):
        ended = examined(
            forge,
            *("--broker", server.url),
            *("--from", str(tmp_path / "shared" / "a"), "--to", str(tmp_path / "shared" / "b")),
        )
    errors, warnings = told(ended, "error"), told(ended, "warning")

    assert ended.code == 1
    assert set(errors) == {
        *("fleet.orchestrators", "fleet.settings", "clock"),
        *("bare: store.answers", "bare: store.exists"),
    }
    assert re.fullmatch(
        r"SNAPFERRY_VISIBILITY_TIMEOUT differs: 1800 \(bare@.*\); 60 \(odd@.*\)", errors["fleet.settings"]
    )
    behind = re.match(r"the clock of odd@\S+ is (\d+) s behind this machine's", errors["clock"])
    # The answer of a busy machine is late, and the time that it took cannot be told from a difference.
    assert behind is not None
    assert 300 < int(behind[1]) <= 400
    assert "there is no such directory" in errors["bare: store.answers"]
    assert "/shared/b does not exist here" in errors["bare: store.exists"]
    assert set(warnings) == {"fleet.versions"}
    said = {one["said"] for one in ended.document["checks"] if one["check"] == "fleet.versions"}
    assert any(re.search(r": old@", one) for one in said)
    assert any(re.match(r"versions of messages differ: 2 \(odd@", one) for one in said)


def test_workers_that_share_a_name_are_told_and_each_checks_the_stores(
    server: OwnRedis, tmp_path: Path, forge: Forge
) -> None:
    make_store(tmp_path / "a", random_files(1))
    (tmp_path / "b").mkdir()
    fleet = Fleet(server.url, tmp_path, ALLOWED)
    with fleet.orchestrator(), fleet.worker(), fleet.worker(), fleet.worker("other"):
        ended = examined(
            forge,
            *("--broker", server.url, "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")),
        )

    assert (ended.code, set(told(ended, "warning", "error"))) == (0, {"fleet.names"})
    assert re.match(r"2 processes share the name worker@\S+ \(\d+ on ", told(ended, "warning")["fleet.names"])
    assert told(ended, "ok")["fleet.workers"].startswith("3 workers ")
    assert {"fleet.orchestrators"} < set(told(ended, "ok"))
    nodes = {one["node"] for one in ended.document["checks"] if one["node"]}
    assert sorted(node.partition("@")[0] for node in nodes) == ["orchestrator", "other", "worker", "worker"]


def test_a_broker_that_would_lose_work_is_an_error(server: OwnRedis, forge: Forge) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        for number in range(32):
            client.set(f"ballast:{number}", bytes(1_000_000))
        client.config_set("maxmemory", 40_000_000)
        before = content(server.url)
        ended = examined(forge, "--broker", server.url)

        assert content(server.url) == before
    assert ended.code == 1
    assert set(told(ended, "error")) == {"broker.policy", "fleet.workers", "fleet.orchestrators"}
    assert set(told(ended, "warning")) == {"broker.persistence", "broker.memory"}


def test_a_broker_that_is_full_is_an_error(server: OwnRedis, forge: Forge) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1_000_000)
        before = content(server.url)
        ended = examined(forge, "--broker", server.url)

        assert content(server.url) == before
    assert ended.code == 1
    assert set(told(ended, "error")) == {"broker.memory", "broker.writes", "fleet.answers"}


def test_a_broker_that_cannot_write_to_its_disk_is_an_error(
    server: OwnRedis, tmp_path: Path, forge: Forge
) -> None:
    with redis.Redis.from_url(server.url) as client:
        # A directory in the way of the file.
        (tmp_path / "redis" / "dump.rdb").mkdir()
        client.config_set("save", "3600 1")
        client.set("some", "thing")
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save failed")
        ended = examined(forge, "--broker", server.url)

    assert ended.code == 1
    assert told(ended, "error")["broker.persistence"] == (
        "it cannot write its data to disk (rdb_last_bgsave_status)"
    )
    assert "MISCONF" in told(ended, "error")["broker.writes"]


def test_a_replica_is_an_error(server: OwnRedis, tmp_path: Path, forge: Forge) -> None:
    port = server.url.rpartition(":")[2].partition("/")[0]
    with own_redis(tmp_path / "replica", "--port", "{port}", "--replicaof", f"127.0.0.1 {port}") as replica:
        ended = examined(forge, "--broker", replica.url)

    assert ended.code == 1
    assert set(told(ended, "error")) >= {"broker.role", "broker.writes"}
    assert "READONLY" in told(ended, "error")["broker.writes"]


def test_a_user_who_may_not_all_is_told_what_is_refused_and_leaves_nothing(
    server: OwnRedis, forge: Forge
) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-zrevrange")
        before = content(server.url)
        ended = examined(forge, "--broker", server.url.replace("redis://", "redis://few:pw@"))

        assert content(server.url) == before
    assert ended.code == 1
    assert "ZREVRANGE: " in told(ended, "error")["broker.writes"]
    assert "pw" not in ended.out


def test_a_broker_that_does_not_answer_is_an_error_and_not_bad_input(forge: Forge) -> None:
    ended = examined(forge, "--broker", f"redis://:hidden@127.0.0.1:{free_port()}/0")

    assert ended.code == 1
    assert "does not answer: Error 111" in told(ended, "error")["broker.answers"]
    assert "hidden" not in ended.out + ended.err


@pytest.mark.parametrize("password", ["", ":wrong@"])
def test_a_broker_that_refuses_the_password_is_not_said_to_be_silent(
    forge: Forge, tmp_path: Path, password: str
) -> None:
    options = ("--port", "{port}", "--requirepass", "right")
    with own_redis(tmp_path / "redis", *options, url="redis://:right@127.0.0.1:{port}/0") as server:
        url = server.url.replace(":right@", password)
        ended = examined(forge, "--broker", url)

    assert ended.code == 1
    shown = url.replace(password, "")
    said = f"{shown} requires a password, or refuses the user or password of the URL"
    assert told(ended, "error")["broker.answers"] == said


def test_jobs_that_are_paused_or_do_not_move_are_told(server: OwnRedis, tmp_path: Path, forge: Forge) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1))
    jobs = Jobs(Settings(broker_url=server.url))
    paused, stuck, new = (
        jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        for _ in range(3)
    )
    jobs.pause(paused)
    with redis.Redis.from_url(server.url) as client:
        moved = float(client.hget(job_key(stuck), "moved_at") or 0)
        client.hset(job_key(stuck), "moved_at", moved - 100)
    ended = examined(forge, "--broker", server.url)
    warnings, fine = told(ended, "warning"), told(ended, "ok")

    assert warnings["jobs.paused"].startswith(f"job {paused} is paused")
    assert re.match(rf"job {stuck} \(queued\) .* 10\d s: not planned yet", warnings["jobs.stuck"])
    assert new not in ended.out
    assert fine["jobs"] == "3 open jobs, 3 queued tasks"


def test_without_a_broker_it_tries_what_commands_would_start(tmp_path: Path, forge: Forge) -> None:
    fine = examined(forge)
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory; exit 1\n")
    broken.chmod(0o755)
    ended = examined(forge, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})

    assert (fine.code, set(told(fine, "ok"))) == (0, {"embedded"})
    assert ended.code == 1
    assert "the embedded server" in told(ended, "error")["embedded"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "relative"], "is not a store URL"),
        (["--to", "s3://key:secret@bucket/x"], "carries credentials"),
        (["--id", "5" * 64], "--id requires --from"),
        (["--from", "/tmp/a", "--id", "5"], "--id: 5: is not a snapshot id"),
        (["--from", "/tmp/a", "--to", "/tmp/a"], "is both source and destination"),
        (["--to-objects", "/tmp/a"], "--to-objects requires --to"),
        (["--broker", "http://host"], "the broker URL must begin with"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(forge: Forge, arguments: list[str], said: str) -> None:
    ended = forge.run(["doctor", *arguments])

    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_it_is_coloured_on_a_terminal_unless_that_is_not_wanted(tmp_path: Path) -> None:
    make_store(tmp_path / "a", random_files(1))

    def shown(**env: str) -> str:
        master, slave = pty.openpty()
        command = [*program(), "doctor", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")]
        env = environment({"TERM": "xterm", "COLUMNS": "100", **env})
        with subprocess.Popen(
            command, env=env, stdout=slave, stderr=subprocess.DEVNULL, cwd=REPOSITORY
        ) as process:
            os.close(slave)
            text = b""
            with suppress(OSError):  # the terminal is closed when its last writer ends
                while chunk := os.read(master, 4096):
                    text += chunk
        os.close(master)
        assert process.returncode == 0
        return text.decode()

    colored, plain = shown(), shown(NO_COLOR="1")

    assert "\x1b[32mok" in colored
    assert "\x1b[36mnote" in colored
    assert "\x1b[32m" not in plain
    assert "→ make sure that no mount is missing" in plain


def test_the_stores_of_mirrors_and_scrubs_are_checked_and_each_table_is_named(
    tmp_path: Path, forge: Forge
) -> None:
    make_store(tmp_path / "live", random_files(2))
    (tmp_path / "backup").mkdir()
    (tmp_path / "snapferry.toml").write_text(
        f"""
        [stores]
        live = "{tmp_path}/live"
        gone = "{tmp_path}/gone"

        [[mirror]]
        name = "nightly"
        from = "live"
        to = "{tmp_path}/backup"
        every = "6h"

        [[mirror]]
        name = "round"
        from = "live"
        to = "{tmp_path}/live"
        every = "6h"

        [[scrub]]
        name = "nightly"
        store = "gone"
        every = "1d"
        share = "1/30"
        """
    )
    env = {"SNAPFERRY_CONFIG": str(tmp_path / "snapferry.toml")}

    ended = examined(forge, env=env)
    of_a_copy = examined(forge, "--from", str(tmp_path / "live"), env=env)

    assert ended.code == 1
    by_level = {
        level: {one["about"] for one in ended.document["checks"] if one["level"] == level}
        for level in ("ok", "error")
    }
    assert by_level["ok"] >= {"mirror nightly: source", "mirror nightly: destination"}
    assert by_level["error"] == {"mirror round", "scrub nightly: source"}
    assert list((tmp_path / "backup").iterdir()) == []
    assert {one["about"].partition(" ")[0] for one in of_a_copy.document["checks"]}.isdisjoint(
        {"mirror", "scrub"}
    )
