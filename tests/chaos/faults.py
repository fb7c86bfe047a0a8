"""The faults: each is done to the world, lasts for a while, and is undone."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis

from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, Priority, lists
from tests.integration.processes import children_of

from .proxy import KINDS
from .world import Role, World

Fault = Callable[[World], str]


def _some(made: World, kind: str | None = None) -> Role:
    return made.chance.choice([role for role in made.roles if kind in (None, role.kind)])


def _client(made: World) -> redis.Redis:
    return redis.Redis.from_url(made.redis.url, decode_responses=True, socket_timeout=5)


def kill_child(made: World) -> str:
    role = _some(made)
    children = children_of(role.running.process.pid) if role.running else []
    if children:
        with suppress(ProcessLookupError):
            os.kill(made.chance.choice(children), signal.SIGKILL)
    return role.name


def _kill(made: World, kind: str) -> str:
    role = _some(made, kind)
    if role.running:
        role.running.kill_all()
    return role.name


def kill_worker(made: World) -> str:
    return _kill(made, "worker")


def kill_orchestrator(made: World) -> str:
    return _kill(made, "orchestrator")


def kill_all_workers(made: World) -> str:
    for role in made.roles:
        if role.kind == "worker" and role.running:
            role.running.kill_all()
    return "all"


def terminate(made: World) -> str:
    role = _some(made)
    if role.running and role.running.process.poll() is None:
        role.running.process.terminate()
    return role.name


def freeze_role(made: World) -> str:
    role = _some(made)
    family = role.running.family() if role.running else []
    for process in family:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
    time.sleep(made.chance.uniform(5, 40))
    for process in family:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    return role.name


def kill_redis(made: World) -> str:
    made.redis.kill()
    seconds = made.chance.choice([0.1, 1, 3, 12])
    time.sleep(seconds)
    made.redis.start()
    return f"{seconds} s"


def freeze_redis(made: World) -> str:
    assert made.redis.process
    made.redis.process.send_signal(signal.SIGSTOP)
    time.sleep(made.chance.uniform(2, 15))
    made.redis.process.send_signal(signal.SIGCONT)
    return ""


def cut_clients(made: World) -> str:
    with _client(made) as client:
        for _ in range(4):
            client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.5)
    return ""


def readonly_redis(made: World) -> str:
    with _client(made) as client:
        client.replicaof("127.0.0.1", 1)
        time.sleep(made.chance.uniform(2, 8))
        client.replicaof("NO", "ONE")
    return ""


def failover_redis(made: World) -> str:
    with _client(made) as client:
        client.replicaof("127.0.0.1", 1)
    time.sleep(6)
    made.redis.kill()
    time.sleep(12)
    made.redis.start()
    return ""


def full_redis(made: World) -> str:
    with _client(made) as client:
        client.config_set("maxmemory", "1mb")
        time.sleep(made.chance.uniform(2, 10))
        client.config_set("maxmemory", "0")
    return ""


def lose_queue(made: World) -> str:
    with _client(made) as client:
        client.delete(*lists(COPY_QUEUE))
    return ""


def duplicate_messages(made: World) -> str:
    with _client(made) as client:
        for name in lists(COPY_QUEUE):
            found = client.lrange(name, 0, 20)
            if found:
                client.lpush(name, *found)
    return ""


def poison_messages(made: World) -> str:
    forms = [
        "",
        "{}",
        "[]",
        "null",
        "7",
        "not json",
        json.dumps({"body": "%%%", "headers": [], "properties": {}}),
    ]
    forms.append(
        json.dumps(
            {"body": "e30=", "content-type": "application/data", "properties": {"body_encoding": "base64"}}
        )
    )
    with _client(made) as client:
        client.lpush(lists(COPY_QUEUE)[0], *made.chance.sample(forms, 3))
    return ""


def revoke_messages(made: World) -> str:
    """Revoke what is in the queues, as Flower's button does."""
    with _client(made) as client:
        found = [
            text for name in lists(COPY_QUEUE) + lists(PLAN_QUEUE) for text in client.lrange(name, 0, 20)
        ]
    ids = []
    for text in found:
        with suppress(ValueError, KeyError, TypeError):
            ids.append(json.loads(text)["headers"]["id"])
    if ids:
        made.jobs._app.control.revoke(ids, terminate=made.chance.random() < 0.5)
    return f"{len(ids)}"


def flush_redis(made: World) -> str:
    """Let Redis forget everything: the jobs are gone, the fleet is not."""
    with _client(made) as client:
        client.flushall()
    gone = len(made.submitted)
    made.forgotten += made.submitted
    made.submitted.clear()
    return f"{gone} jobs forgotten"


def no_names(made: World) -> str:
    """Let no name be resolved."""
    flag = made.folder / "no-names"
    flag.touch()
    time.sleep(made.chance.uniform(2, 15))
    flag.unlink()
    return ""


def move_clock(made: World) -> str:
    """Let the clocks of all processes jump, and jump back."""
    seconds = made.chance.choice([-7200, -40, 40, 7200])
    flag = made.folder / "clock"
    flag.write_text(str(seconds))
    time.sleep(made.chance.uniform(2, 10))
    flag.unlink()
    return f"{seconds} s"


def fill_disk(made: World) -> str:
    """Leave no space at the destination in a directory."""
    if not made.disk:
        return "there is no disk"
    ballast = made.disk / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(65536))
            file.flush()
    time.sleep(made.chance.uniform(2, 12))
    ballast.unlink()
    return ""


def lose_mount(made: World) -> str:
    """Unmount the destination in a directory, as a network mount goes away."""
    if not made.disk:
        return "there is no disk"
    made.unmount()
    time.sleep(made.chance.uniform(2, 12))
    if list((made.folder / "destination").rglob("*")):
        made.violations.append("something was written where nothing is mounted")
    made.mount()
    return ""


def few_descriptors(made: World) -> str:
    """Let the processes of a role open no more files than they have open, more or less."""
    role = _some(made)
    family = role.running.family() if role.running else []
    before = {}
    for process in family:
        with suppress(OSError):
            most = len(os.listdir(f"/proc/{process}/fd")) + made.chance.choice([0, 2, 8])
            before[process] = resource.prlimit(process, resource.RLIMIT_NOFILE)
            resource.prlimit(process, resource.RLIMIT_NOFILE, (most, before[process][1]))
    time.sleep(made.chance.uniform(2, 10))
    for process, limits in before.items():
        with suppress(OSError):
            resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
    return role.name


def _s3(kind: str) -> Fault:
    def trouble(made: World) -> str:
        made.trouble.share = made.chance.choice([0.02, 0.2, 1.0])
        made.trouble.kind = kind
        time.sleep(made.chance.uniform(2, 10))
        made.trouble.kind = ""
        return f"{made.trouble.share:.0%}"

    return trouble


def s3_away(made: World) -> str:
    made.trouble.kind = "refused"
    time.sleep(made.chance.uniform(20, 45))
    made.trouble.kind = ""
    return ""


def _sources(made: World) -> list[Path]:
    roots = [made.folder / "source", made.bucket_folder / "source"]
    return [path for root in roots for path in (root / ".objects").rglob("?" * 55) if path.is_file()]


def _hurt(how: Callable[[Path], object]) -> Fault:
    def hurt(made: World) -> str:
        path = made.chance.choice(sorted(_sources(made)))
        data = path.read_bytes()
        path.unlink()
        with suppress(FileExistsError):
            how(path)
        time.sleep(made.chance.uniform(2, 10))
        with suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(data)
        return path.name[:8]

    return hurt


object_missing = _hurt(lambda _: None)
object_corrupt = _hurt(lambda path: path.write_bytes(random.Random(7).randbytes(300)))
object_fifo = _hurt(os.mkfifo)
object_link = _hurt(lambda path: path.symlink_to("/etc/passwd"))
object_directory = _hurt(lambda path: path.mkdir())


def planted_link(made: World) -> str:
    """Plant a link to elsewhere at a shard of a destination, as long as the shard is not there."""
    outside = made.folder / "outside"
    outside.mkdir(exist_ok=True)
    shards = [made.destinations[0] / ".objects" / f"{made.chance.randrange(4096):03x}" for _ in range(40)]
    planted = []
    for shard in shards:
        with suppress(OSError):
            shard.symlink_to(outside)
            planted.append(shard)
    time.sleep(made.chance.uniform(3, 8))
    for shard in planted:
        shard.unlink()
    if list(outside.rglob("*")):
        made.violations.append("something was written outside of a store")
    return f"{len(planted)}"


def _with_job(what: Callable[[World, str], object]) -> Fault:
    def do(made: World) -> str:
        job = made.chance.choice(made.submitted)
        with suppress(Exception):
            what(made, job)
        return job[:8]

    return do


def pause(made: World) -> str:
    job = made.chance.choice(made.submitted)
    with suppress(Exception):
        made.jobs.pause(job)
    time.sleep(made.chance.uniform(1, 10))
    for _ in range(100):
        try:
            made.jobs.unpause(job)
            break
        except Exception as error:
            if type(error).__name__ != "BrokerUnavailable":
                break
            time.sleep(1)
    return job[:8]


FAULTS: dict[str, Fault] = {
    "kill pool child": kill_child, "kill worker": kill_worker, "kill orchestrator": kill_orchestrator,
    "kill all workers": kill_all_workers, "SIGTERM": terminate, "freeze a process": freeze_role,
    "kill Redis": kill_redis, "freeze Redis": freeze_redis, "cut Redis' clients": cut_clients,
    "read-only Redis": readonly_redis, "fail over Redis": failover_redis, "full Redis": full_redis,
    "lose the queue": lose_queue, "duplicate messages": duplicate_messages, "poison messages": poison_messages,
    "revoke messages": revoke_messages, "flush Redis": flush_redis, "no names": no_names, "clock": move_clock,
    "disk full": fill_disk, "mount away": lose_mount, "few descriptors": few_descriptors,
    "S3 away": s3_away,
    **{f"S3 {kind}": _s3(kind) for kind in KINDS if kind != "refused"},
    "object missing": object_missing, "object corrupt": object_corrupt, "object is a FIFO": object_fifo,
    "object is a link": object_link, "object is a directory": object_directory, "planted link": planted_link,
    "pause": pause,
    "cancel": _with_job(lambda made, job: made.jobs.cancel(job)),
    "resume": _with_job(lambda made, job: made.submitted.append(made.jobs.resume(job) or job)),
    "retry": _with_job(lambda made, job: made.submitted.append(made.jobs.retry(job))),
    "priority": _with_job(lambda made, job: made.jobs.prioritise(job, made.chance.choice(list(Priority)))),
    "limit": _with_job(lambda made, job: made.jobs.limit(job, {"jobs": made.chance.randint(1, 9)})),
}  # fmt: skip
