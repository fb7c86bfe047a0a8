"""A Redis that is absent, full, read-only, silent or shared, and real commands, workers and orchestrators around it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.sample import make_store, random_files, tree

from .own_redis import OwnRedis, own_redis
from .processes import PATIENCE_S, Fleet, Started, finished, program, slow_batches, snapferry, started, until
from .test_poison import changed

SLOW = slow_batches(0.3)


def logged(process: Started, text: str) -> bool:
    return text in process.logged()


def jobs_of(server: OwnRedis) -> Jobs:
    return Jobs(Settings(broker_url=server.url, batch_objects=5))


def submit(jobs: Jobs, tmp_path: Path, count: int = 100) -> str:
    snapshot = make_store(tmp_path / "a", random_files(count))
    return jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))


def mirror(name: str, source: Path, destination: Path) -> str:
    return f'[[mirror]]\nname = "{name}"\nfrom = "{source}"\nto = "{destination}"\nevery = "10s"\n'


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def whole(tmp_path: Path) -> bool:
    found = {path: data for path, data in tree(tmp_path / "b").items() if ".tmp-" not in path}
    return found == tree(tmp_path / "a")


@contextmanager
def filled(server: OwnRedis) -> Iterator[redis.Redis]:
    """Let the Redis be full in the block: whatever takes memory is refused."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.config_set("maxmemory", "1")
        try:
            yield client
        finally:
            client.config_set("maxmemory", "0")


@contextmanager
def read_only(server: OwnRedis) -> Iterator[redis.Redis]:
    """Let the Redis be a replica in the block, of a primary that is not there: as in a failover."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            yield client
        finally:
            with suppress(redis.RedisError):
                client.replicaof("NO", "ONE")


@pytest.mark.slow
def test_every_role_waits_for_a_broker_that_is_not_there_yet(tmp_path: Path) -> None:
    config = tmp_path / "snapferry.toml"
    config.write_text('[[mirror]]\nname = "seldom"\nfrom = "/x"\nto = "/y"\nevery = "1h"\n')
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        server.kill()
        env = {"SNAPFERRY_BROKER_URL": server.url, "SNAPFERRY_CONFIG": str(config)}
        commands = {
            "worker": ["worker", "-c", "2"],
            "orchestrator": ["orchestrator"],
            "scheduler": ["scheduler"],
            "flower": ["flower", "--port", str(servers.free_port()), "--db", str(tmp_path / "flower.db")],
            "dashboard": ["dashboard", "--port", "0"],
            "plain Celery": [],
        }
        with ExitStack() as stack:
            roles = {}
            for name, command in commands.items():
                line = [*program(), *command]
                if not command:
                    line = [
                        sys.executable,
                        "-m",
                        "celery",
                        "-A",
                        "snapferry.worker",
                        "worker",
                        "-Q",
                        COPY_QUEUE,
                    ]
                    line += ["--loglevel", "info"]
                log = tmp_path / f"{name}.log"
                roles[name] = stack.enter_context(started(*line, env=env, log=log))
            for name, role in roles.items():
                if name != "dashboard":
                    until(partial(logged, role, "waiting for it"), f"{name} waits")
            until(lambda: "dashboard at" in roles["dashboard"].logged(), "the dashboard says so on its pages")
            server.start()
            for name in ("worker", "orchestrator", "plain Celery"):
                until(partial(logged, roles[name], " ready."), f"{name} is ready")
            until(lambda: "schedule taken over" in roles["scheduler"].logged(), "the scheduler works")
            job_id = submit(jobs_of(server), tmp_path)
            assert jobs_of(server).wait(job_id, timeout_s=PATIENCE_S).state is State.DONE
            for name, role in roles.items():
                assert role.process.poll() is None, f"{name}: {role.logged()[-2000:]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--maxmemory-policy", "allkeys-lru"], "maxmemory-policy allkeys-lru"),
        (["--requirepass", "secret"], "it requires a password, or refuses the user or password of the URL"),
    ],
)
def test_a_broker_that_must_not_be_used_ends_every_role_at_once(
    tmp_path: Path, options: list[str], said: str
) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    port = servers.free_port()
    command = [servers.redis_program(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: listens(port), "Redis listens")
            for role in ("worker", "orchestrator", "flower"):
                ended = snapferry(role, "--broker", f"redis://127.0.0.1:{port}/0", timeout_s=60)
                assert ended.code in (1, 2)
                assert said in ended.err
                assert "Traceback" not in ended.err
        finally:
            server.kill()


@pytest.mark.slow
def test_a_database_that_does_not_exist_is_no_outage(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}", url="redis://127.0.0.1:{port}/0") as server:
        ended = snapferry("worker", "--broker", server.url.replace("/0", "/99"), timeout_s=60)

    assert ended.code in (1, 2)
    assert "DB index is out of range" in ended.err


@pytest.mark.slow
def test_a_failover_ends_no_process_and_loses_no_work(tmp_path: Path) -> None:
    """Read-only for a while, then away, with batches running and others that wait for their time."""
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        fleet = Fleet(server.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "5"})
        with fleet.orchestrator() as orchestrator, fleet.worker(before=SLOW) as worker:
            jobs = jobs_of(server)
            job_id = submit(jobs, tmp_path, 300)
            until(lambda: jobs.status(job_id).batches_done > 2, "batches are copied")
            later = (datetime.now(UTC) + timedelta(seconds=25)).isoformat()
            with redis.Redis.from_url(server.url) as client:
                for _ in range(4):
                    client.rpush(COPY_QUEUE, changed("headers", "eta", to=later))
                until(lambda: client.hlen(UNACKED) > 4, "they are taken")
            with read_only(server):
                time.sleep(6)
                server.kill()
            time.sleep(12)
            server.start()
            with redis.Redis.from_url(server.url) as client:
                client.replicaof("NO", "ONE")
            status = jobs.wait(job_id, timeout_s=150)
            for role in (orchestrator, worker):
                assert role.process.poll() is None, role.logged()[-3000:]

    assert status.state is State.DONE, status
    assert (status.copied, status.failed) == (301, 0)
    assert whole(tmp_path)


@pytest.mark.slow
def test_a_full_redis_is_waited_for_and_can_be_asked(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        fleet = Fleet(server.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "5"})
        env = {"SNAPFERRY_BROKER_URL": server.url}
        with fleet.orchestrator() as orchestrator, fleet.worker(before=SLOW) as worker:
            jobs = jobs_of(server)
            job_id = submit(jobs, tmp_path, 200)
            other = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "c")), None))
            until(lambda: jobs.status(job_id).batches_done > 2, "batches are copied")
            with filled(server):
                asked = {
                    command: finished(
                        [*program(), *command.split(), *([job_id] if command[0] not in "jm" else [])], env
                    )
                    for command in ("status", "failures", "jobs", "receipt")
                }
                refused = finished(
                    [
                        *program(),
                        "submit",
                        "--from",
                        str(tmp_path / "a"),
                        "--to",
                        str(tmp_path / "d"),
                        "--all",
                    ],
                    env,
                )
                paused = finished([*program(), "pause", job_id], env)
                cancelled = finished([*program(), "cancel", other], env)
                time.sleep(10)
            continued = finished([*program(), "continue", job_id], env)
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
            assert jobs.wait(other, timeout_s=PATIENCE_S).state is State.CANCELLED
            known = [one.job_id for one in jobs.list(limit=10)]
            for role in (orchestrator, worker):
                assert role.process.poll() is None
                assert role.logged().count(" ready.") == 1, "it never started again"

    for command, ended in asked.items():
        assert ended.code == 0, f"{command}: {ended.err}"
    assert (refused.code, refused.err.count("\n")) == (1, 1), refused.err
    assert "Redis is full" in refused.err
    assert sorted(known) == sorted([job_id, other])
    for ended in (paused, cancelled, continued):
        assert ended.code == 0, ended.err
    assert status.state is State.DONE, status
    assert whole(tmp_path)


def test_a_read_only_redis_can_be_asked_and_refuses_the_rest_clearly(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        job_id = submit(jobs_of(server), tmp_path)
        env = {"SNAPFERRY_BROKER_URL": server.url}
        with read_only(server):
            asked = [finished([*program(), *command], env) for command in (["status", job_id], ["jobs"])]
            refused = [
                finished([*program(), *command], env)
                for command in (
                    ["pause", job_id],
                    ["cancel", job_id],
                    ["submit", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "d"), "--all"],
                )
            ]

    assert [ended.code for ended in asked] == [0, 0], asked
    for ended in refused:
        assert (ended.code, ended.err.count("\n")) == (1, 1), ended.err
        assert "Redis is a read-only replica" in ended.err


@pytest.mark.slow
def test_a_sync_whose_broker_is_lost_says_that_its_job_goes_on(tmp_path: Path) -> None:
    impatient = "import snapferry.orchestrator.jobs.reader as j\nj.OUTAGE_S = 1\n"
    snapshot = make_store(tmp_path / "a", random_files(10))
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        stores = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot]
        command = [*program(impatient), "sync", "--broker", server.url, *stores]
        with started(*command, log=tmp_path / "sync.log") as running:
            jobs = jobs_of(server)
            (job,) = until(lambda: jobs.list(limit=1), "the job is queued")
            server.kill()
            assert running.process.wait(PATIENCE_S) == 1
            said = running.logged()

    assert f"snapferry watch {job.job_id}" in said
    assert "Traceback" not in said


def commands() -> str:
    """Return the commands of the user that docs/configure.md shows."""
    page = Path(__file__).parents[2] / "docs" / "configure.md"
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("ACL SETUSER snapferry ")]
    return line.removeprefix("ACL SETUSER snapferry ")


@pytest.mark.slow
def test_a_user_with_the_documented_rights_is_enough(tmp_path: Path) -> None:
    config = tmp_path / "snapferry.toml"
    config.write_text(mirror("often", tmp_path / "a", tmp_path / "c"))
    make_store(tmp_path / "a", random_files(60))
    with (
        own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        client.execute_command(*f"ACL SETUSER snapferry {commands().replace('PASSWORD', 'secret')}".split())
        url = server.url.replace("redis://", "redis://snapferry:secret@")
        fleet = Fleet(url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "20"})
        env = {"SNAPFERRY_BROKER_URL": url}
        command = [*program(), "scheduler", "--config", str(config)]
        with (
            fleet.orchestrator() as orchestrator,
            fleet.worker() as worker,
            started(*command, env=env, log=tmp_path / "scheduler.log") as scheduler,
        ):
            ended = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--all")
            assert ended.code == 0, ended.err
            jobs = Jobs(Settings(broker_url=url))
            until(lambda: len(jobs.list(limit=5)) > 1, "the mirror is run")
            doctor = finished([*program(), "doctor"], env)
            logs = orchestrator.logged() + worker.logged() + scheduler.logged()
        denied = {(str(one["object"]).lower(), str(one["reason"])) for one in client.acl_log()}

    # INFO and CONFIG are not among the rights, nor are the keys of other applications.
    assert denied <= {
        ("info", "command"),
        ("config|get", "command"),
        ("celery", "key"),
        ("unacked_index", "key"),
    }
    assert "has no permissions" not in logs, logs
    assert "allow the command INFO" in doctor.out
    assert doctor.code == 0, doctor.out
    assert whole(tmp_path)


def test_a_submit_that_the_queue_refuses_is_withdrawn(tmp_path: Path) -> None:
    with (
        own_redis(tmp_path / "redis", "--port", "{port}") as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.execute_command(*["ACL", "SETUSER", "half", "on", ">secret", "~*", "&*", "+@all", "-lpush"])
        url = server.url.replace("redis://", "redis://half:secret@")
        make_store(tmp_path / "a", random_files(10))
        ended = finished(
            [
                *program(),
                "submit",
                "--from",
                str(tmp_path / "a"),
                "--to",
                str(tmp_path / "b"),
                "--all",
                "--delete",
            ],
            {"SNAPFERRY_BROKER_URL": url},
        )

        assert (ended.code, ended.err.count("\n")) == (1, 1), ended.err
        assert "lpush" in ended.err
        assert not client.zcard("snapferry:jobs")
        assert not client.scard("snapferry:open")
        assert not list(client.scan_iter("snapferry:job:*"))


BEGUN = """
import snapferry.orchestrator.jobs.client as j
from snapferry.workers.ledger import State
from redis.exceptions import ConnectionError
def queue_plan(app, request):
    if {begun}:
        held[0].advance(request.job_id, State.PLANNING)
    raise ConnectionError("the answer was lost")
held = []
init = j.Jobs.__init__
def patched(self, *a, **k):
    init(self, *a, **k)
    held.append(self._ledger)
j.Jobs.__init__, j.queue_plan = patched, queue_plan
"""


@pytest.mark.parametrize("begun", [True, False])
def test_a_submit_whose_answer_was_lost_says_what_became_of_it(tmp_path: Path, begun: bool) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        make_store(tmp_path / "a", random_files(10))
        command = ["submit", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--all", "--json"]
        ended = finished(
            [*program(BEGUN.format(begun=begun)), *command], {"SNAPFERRY_BROKER_URL": server.url}
        )
        known = [one.job_id for one in jobs_of(server).list(limit=5)]

    if begun:
        assert (ended.code, [ended.document["job"]]) == (0, known)
    else:
        assert (ended.code, known) == (1, [])
        assert "the answer was lost" in ended.err


FOREIGN = """
import sys, time
from celery import Celery
app = Celery("theirs", broker={url!r}, backend={url!r})
app.conf.update(broker_transport_options={{"visibility_timeout": 3600}}, task_acks_late=True)
@app.task(name="theirs.long")
def long():
    print("THEIRS BEGUN", flush=True)
    time.sleep(25)
app.worker_main(["worker", "-P", "solo", "-Q", "theirs", "--loglevel", "warning", "--without-mingle"])
"""


@pytest.mark.slow
def test_another_celery_application_on_the_database_is_left_alone_and_leaves_us_alone(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        env = {"SNAPFERRY_BATCH_OBJECTS": "5", "SNAPFERRY_VISIBILITY_TIMEOUT": "5"}
        fleet = Fleet(server.url, tmp_path, env)
        theirs = [sys.executable, "-c", FOREIGN.format(url=server.url)]
        from celery import Celery

        app = Celery("theirs", broker=server.url, set_as_current=False)
        with (
            fleet.orchestrator() as orchestrator,
            fleet.worker() as worker,
            started(*theirs, log=tmp_path / "theirs.log") as other,
            redis.Redis.from_url(server.url, decode_responses=True) as client,
        ):
            app.send_task("theirs.long", queue="theirs", ignore_result=True)
            until(lambda: "THEIRS BEGUN" in other.logged(), "their task runs")
            began = time.monotonic()
            doctor = finished([*program(), "doctor"], {"SNAPFERRY_BROKER_URL": server.url, **env})
            assert jobs_of(server).wait(submit(jobs_of(server), tmp_path), timeout_s=60).state is State.DONE
            until(lambda: time.monotonic() - began > 17, "our visibility timeout passed, twice over")
            assert client.hlen("unacked") == 1
            assert not client.llen("theirs")
            app.control.shutdown()
            app.close()
            # They end by it once their task is done.
            assert other.process.wait(PATIENCE_S) is not None
            assert other.logged().count("THEIRS BEGUN") == 1
            for role in (orchestrator, worker):
                assert role.process.poll() is None
        assert "another Celery application" in doctor.out


@pytest.mark.slow
def test_what_an_earlier_version_had_taken_is_put_back_and_nothing_else(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        env = {"SNAPFERRY_VISIBILITY_TIMEOUT": "5"}
        fleet = Fleet(server.url, tmp_path, env)
        sooner = "import snapferry.workers.broker.upgrade as u\nu.EVERY_S = 1\n"
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            job_id = submit(jobs_of(server), tmp_path)
            message = client.rpop(PLAN_QUEUE)
            assert isinstance(message, str)
            old = time.time() - 60
            entries = {
                "ours": [json.loads(message), "", PLAN_QUEUE],
                "theirs": [{"body": "x"}, "celery", "celery"],
                "broken": 5,
                "theirs too": [json.loads(message), "", "celery"],
            }
            for tag, entry in entries.items():
                client.hset("unacked", tag, json.dumps(entry))
                client.zadd("unacked_index", {tag: old})
            client.hset("unacked", "fresh", json.dumps(entries["ours"]))
            client.zadd("unacked_index", {"fresh": time.time() + 1000})
            with fleet.orchestrator(before=sooner), fleet.worker():
                assert jobs_of(server).wait(job_id, timeout_s=PATIENCE_S).state is State.DONE
            assert set(client.hkeys("unacked")) == {"theirs", "broken", "theirs too", "fresh"}
            assert set(client.zrange("unacked_index", 0, -1)) == {"theirs", "broken", "theirs too", "fresh"}


@pytest.mark.slow
def test_a_socket_with_a_space_in_its_path_serves_a_fleet_and_a_scheduler(tmp_path: Path) -> None:
    folder = Path(f"/tmp/snap ferry%{uuid.uuid4().hex[:6]}")
    folder.mkdir()
    path = folder / "s;1"
    config = tmp_path / "snapferry.toml"
    config.write_text(
        f'[[mirror]]\nname = "often"\nfrom = "{tmp_path}/a"\nto = "{tmp_path}/b"\nevery = "10s"\n'
    )
    make_store(tmp_path / "a", random_files(30))
    url = f"unix://{quote(str(path))}?db=3"
    try:
        with own_redis(tmp_path / "redis", "--port", "0", "--unixsocket", str(path), url=url):
            fleet = Fleet(url, tmp_path)
            command = [*program(), "scheduler", "--config", str(config)]
            env = {"SNAPFERRY_BROKER_URL": url}
            with (
                fleet.orchestrator(),
                fleet.worker(),
                started(*command, env=env, log=tmp_path / "scheduler.log") as scheduler,
            ):
                jobs = Jobs(Settings(broker_url=url))
                (job,) = until(lambda: jobs.list(limit=1), "the mirror is run")
                assert jobs.wait(job.job_id, timeout_s=PATIENCE_S).state is State.DONE
                assert scheduler.process.poll() is None
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
    assert whole(tmp_path)


class SilentProxy:
    """Forwards connections to a port; from `silence` on nothing comes through old ones, and nothing is closed."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._silent = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Let the connections that there are be silent; new ones are not."""
        self._silent.set()
        self._silent = threading.Event()

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(
                        target=self._forward, args=(one, other, self._silent), daemon=True
                    ).start()

    @staticmethod
    def _forward(one: socket.socket, other: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not silent.is_set():
                    other.sendall(data)


@pytest.mark.slow
def test_a_publish_on_a_connection_that_went_silent_is_given_up_and_made_again(tmp_path: Path) -> None:
    """A link that is half open: the other side is gone, and no packet says so."""
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        proxy = SilentProxy(int(server.url.rpartition(":")[2].partition("/")[0]))
        sooner = "import snapferry.workers.broker.connecting.pool as c\nc.ANSWER_TIMEOUT_S = 3.0\n"
        publish = f"""
{sooner}
import sys
from snapferry.workers.settings.environment import Settings
from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.driving.dispatch import queue_drive
app = make_fleet_app(Settings(broker_url={f"redis://127.0.0.1:{proxy.port}/0"!r}))
queue_drive(app, "first", "x")
print("published", flush=True)
sys.stdin.readline()
queue_drive(app, "second", "x")
print("published again", flush=True)
"""
        with closing(proxy), redis.Redis.from_url(server.url) as client:
            process = subprocess.Popen(
                [sys.executable, "-c", publish], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "published\n"
                proxy.silence()
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "published again\n"
                assert client.llen(PLAN_QUEUE) == 2
            finally:
                process.kill()
                process.wait()
                process.stdin.close()
                process.stdout.close()


@pytest.mark.slow
def test_a_second_scheduler_with_another_file_waits_warns_and_takes_over(tmp_path: Path) -> None:
    make_store(tmp_path / "a", random_files(5))
    sooner = "import snapferry.orchestrator.schedules.schedule as m\nm.TAKE_OVER_S, m.LOOP_S = 5, 1\n"

    def config(name: str) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'[[mirror]]\nname = "{name}"\nfrom = "{tmp_path}/a"\nto = "{tmp_path}/{name}"\nevery = "10s"\n'
        )
        return path

    with own_redis(tmp_path / "redis", "--port", "{port}") as server, ExitStack() as stack:
        fleet = Fleet(server.url, tmp_path)
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker())
        env = {"SNAPFERRY_BROKER_URL": server.url}

        def scheduler(name: str) -> Any:
            command = [*program(sooner), "scheduler", "--config", str(config(name))]
            return stack.enter_context(started(*command, env=env, log=tmp_path / f"{name}.log"))

        one = scheduler("first")
        until(lambda: "schedule taken over" in one.logged(), "the first works")
        other = scheduler("second")
        until(lambda: "runs a different schedule" in other.logged(), "the second warns")
        until(lambda: list((tmp_path / "first").rglob("?" * 55)), "the first's mirror is run")
        mirrors = finished([*program(), "mirrors", "--config", str(config("second"))], env)
        assert not (tmp_path / "second").exists()
        assert "snapferry scheduler" in mirrors.err
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(PATIENCE_S) == 0
        until(lambda: list((tmp_path / "second").rglob("?" * 55)), "the second's mirror is run")
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.zrange("snapferry:beat::schedule", 0, -1) == ["snapferry:beat:second"]


@pytest.mark.slow
def test_a_damaged_record_costs_its_own_job_alone(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        fleet = Fleet(server.url, tmp_path)
        env = {"SNAPFERRY_BROKER_URL": server.url}
        jobs = jobs_of(server)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            damaged = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(5)]
            hostile = {
                "moved_at": "x",
                "copied": "1e9",
                "state": "copying",
                "error": "\x1b[31mred",
                "batches_done": "-",
            }
            for number, (name, value) in enumerate(hostile.items()):
                bad = damaged[number]
                here = StoreRef(url="/a")
                request = JobSpec(
                    job_id=bad, source=here, destination=here, batch_objects=1, batch_bytes=1
                ).model_dump_json()
                record = {"state": "queued", "request": request, "source": "/a", "destination": "/b"}
                client.hset(f"snapferry:job:{bad}", mapping=record | {name: value})
                client.zadd("snapferry:jobs", {bad: number})
                client.sadd("snapferry:open", bad)
            client.set("snapferry:job:text", "not a hash")
            for odd in ("text", "../../etc", "a*", ""):
                client.sadd("snapferry:open", odd)
                client.zadd("snapferry:jobs", {odd: 1})
            with fleet.orchestrator() as orchestrator, fleet.worker():
                assert jobs.wait(submit(jobs, tmp_path), timeout_s=PATIENCE_S).state is State.DONE
                until(lambda: damaged[-1] in orchestrator.logged(), "a damaged record is named")
                assert "Traceback" not in orchestrator.logged()
            listed = finished([*program(), "jobs"], env)
            status = [finished([*program(), "status", bad], env) for bad in (*damaged[1:4:2], "text")]

    assert listed.code == 0
    assert "\x1b" not in listed.out
    assert [ended.code for ended in status] == [1, 0, 1]
    assert "copied is '1e9'" in status[0].err
    assert "\x1b" not in status[1].out
