"""Messages that nobody can read reach real workers and orchestrators: they are set aside, and the fleet works on."""

from __future__ import annotations

import base64
import json
import random
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.broker.message_validation import KEPT, MAX_CRASHES, QUARANTINE, fault_of
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from tests.queues import waiting
from tests.sample import make_store, random_files, tree

from .processes import PATIENCE_S, Fleet, until


def body_of(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def good(queue: str = COPY_QUEUE) -> dict[str, Any]:
    """Return a message as Celery writes it, of a job that nobody knows."""
    task = "snapferry.plan_job" if queue == PLAN_QUEUE else "snapferry.copy_batch"
    number = str(uuid.uuid4())
    return {
        "body": body_of([["no-such-job"], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": task, "id": number, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": number, "parent_id": None,
            "argsrepr": "", "kwargsrepr": "", "origin": "test", "ignore_result": True, "replaced_task_nesting": 0,
            "stamped_headers": None, "stamps": {},
        },
        "properties": {
            "correlation_id": number, "reply_to": number, "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": queue}, "body_encoding": "base64", "delivery_tag": number,
        },
    }  # fmt: skip


def changed(*path: str, to: object, queue: str = COPY_QUEUE) -> str:
    """Return a good message, but for the field at *path*."""
    message = good(queue)
    at: Any = message
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = to
    return json.dumps(message)


def without(*path: str) -> str:
    message = good()
    at: Any = message
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return json.dumps(message)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


DEEP = base64.b64encode(f"[[{nested(900)}], {{}}, null]".encode()).decode()

POISON: dict[str, str | bytes] = {
    "content type": changed("content-type", to="application/data"),
    "pickle": changed("content-type", to="application/x-python-serialize"),
    "content encoding": changed("content-encoding", to="utf-16"),
    "content type as number": changed("content-type", to=7),
    "empty body": changed("body", to=""),
    "null body": changed("body", to=None),
    "dict body": changed("body", to={"a": 1}),
    "bad base64": changed("body", to="%%%"),
    "base64 of no JSON": changed("body", to=base64.b64encode(b"\xff\xfe").decode()),
    "body of two": changed("body", to=body_of([[], {}])),
    "body object": changed("body", to=body_of({"task": "x"})),
    "args as number": changed("body", to=body_of([5, {}, {}])),
    "callbacks as number": changed("body", to=body_of([[], {}, {"callbacks": 5}])),
    "chord as list": changed("body", to=body_of([[], {}, {"chord": [1]}])),
    "deep body": changed("body", to=DEEP),
    "deep message": nested(100_000),
    "deep header": changed("headers", "stamps", to={"a": json.loads(nested(200))}),
    "time limit as text": changed("headers", "timelimit", to="soon"),
    "time limit of texts": changed("headers", "timelimit", to=["1", "2"]),
    "task as list": changed("headers", "task", to=["snapferry.copy_batch"]),
    "task as null": changed("headers", "task", to=None),
    "no task": without("headers", "task"),
    "id as object": changed("headers", "id", to={"a": 1}),
    "no id": without("headers", "id"),
    "retries as text": changed("headers", "retries", to="x"),
    "group as list": changed("headers", "group", to=["a"]),
    "expires as object": changed("headers", "expires", to={}),
    "compressed": changed("headers", "compression", to="application/x-gzip"),
    "headers as list": changed("headers", to=[1, 2]),
    "headers as null": changed("headers", to=None),
    "no headers": without("headers"),
    "properties as text": changed("properties", to="x"),
    "no properties": without("properties"),
    "delivery info as list": changed("properties", "delivery_info", to=[]),
    "no delivery tag": without("properties", "delivery_tag"),
    "delivery tag as list": changed("properties", "delivery_tag", to=[1]),
    "unknown encoding of the body": changed("properties", "body_encoding", to="rot13"),
    "not JSON": "this is no JSON",
    "not UTF-8": b"\xff\xfe\xfd",
    "empty": "",
    "null": "null",
    "list": "[1, 2, 3]",
    "number": "17",
    "text": '"text"',
    "NaN": "NaN",
    "huge number": "1" * 5000,
    "huge": json.dumps({"body": "x" * 17_000_000}),
}  # fmt: skip

# Read by Celery, and then refused by it or by the task: these are nobody's fault but the sender's.
REFUSED = {
    "unknown task": changed("headers", "task", to="os.system"),
    "time of no day": changed("headers", "eta", to="tomorrow"),
    "year 9999999": changed("headers", "eta", to="9999999-01-01T00:00:00+00:00"),
    "expires at no time": changed("headers", "expires", to="never"),
    "not a batch": changed("body", to=body_of([[{"job_id": "../../x", "version": 3}], {}, None])),
    "no arguments": changed("body", to=body_of([[], {}, None])),
    "named arguments": changed("body", to=body_of([[], {"nobody": 1}, None])),
    "callback of no task": changed("body", to=body_of([["x"], {}, {"callbacks": [{"a": 1}]}])),
}


@pytest.mark.parametrize("name", POISON)
def test_the_fault_of_a_message_is_found(name: str) -> None:
    message = POISON[name]
    assert fault_of(message if isinstance(message, bytes) else message.encode())


@pytest.mark.parametrize("queue", [COPY_QUEUE, PLAN_QUEUE])
def test_a_message_of_celery_has_no_fault(queue: str) -> None:
    assert fault_of(json.dumps(good(queue)).encode()) == ""


@pytest.mark.parametrize("name", REFUSED)
def test_what_celery_refuses_itself_has_no_fault(name: str) -> None:
    assert fault_of(REFUSED[name].encode()) == ""


def mutants(count: int, seed: int) -> list[bytes]:
    """Return good messages with bytes changed, cut or doubled, and fields of other types."""
    chance = random.Random(seed)
    found = []
    odd: list[Any] = [None, True, -1, 2**70, 1.5, "", "x", [], [[]], {}, {"a": {}}, "\x00\x1b[31m", ["a", 1]]
    for _ in range(count):
        if chance.random() < 0.6:
            message = good(chance.choice([COPY_QUEUE, PLAN_QUEUE]))
            part = chance.choice([message, message["headers"], message["properties"]])
            part[chance.choice([*part, "new"])] = chance.choice(odd)
            found.append(json.dumps(message).encode())
        else:
            raw = bytearray(json.dumps(good()).encode())
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(raw))
                raw[at : at + chance.randrange(3)] = bytes(
                    chance.randrange(256) for _ in range(chance.randrange(3))
                )
            found.append(bytes(raw))
    return found


def test_no_message_ends_a_worker_or_an_orchestrator(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))
    fleet = Fleet(redis_url, tmp_path)
    jobs = Jobs(Settings(broker_url=redis_url))
    invented = mutants(300, seed=13)
    with (
        redis.Redis.from_url(redis_url) as client,
        fleet.orchestrator() as orchestrator,
        fleet.worker() as worker,
    ):
        for queue in (COPY_QUEUE, PLAN_QUEUE):
            client.lpush(queue, *POISON.values(), *REFUSED.values(), *invented)
        # A broadcast of the wrong form, too.
        for broadcast in ("no JSON", "[]", "{}", '{"body": 1, "properties": 3}', "null"):
            client.publish("/snapferry-0.snapferry.pidbox", broadcast)
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        until(lambda: not waiting(client, COPY_QUEUE) and not waiting(client, PLAN_QUEUE), "all is taken")
        for role in (orchestrator, worker):
            assert role.process.poll() is None
            assert "Unrecoverable" not in role.logged()
            assert role.logged().count(" ready.") == 1, "it never started again"
            assert "Connection to broker lost" not in role.logged()
            assert sum("message quarantined" in line for line in role.said()) >= len(POISON)
        kept = client.lrange(QUARANTINE, 0, -1)
        # What has an impossible time is refused by its expiry.
        until(lambda: not client.hlen(UNACKED), "nothing is held back", timeout_s=60)

    assert status.state is State.DONE, status
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert len(kept) == KEPT
    assert all(json.loads(one)["reason"] for one in kept)


CRASHING = """
import os, snapferry.workers.broker.consumer as c
from celery.worker.consumer import Consumer
make = Consumer.create_task_handler
def patched(self, *a, **k):
    receive = make(self, *a, **k)
    def handler(message):
        if "deadly" in str(message.headers.get("argsrepr")):
            {act}
        receive(message)
    return handler
Consumer.create_task_handler = patched
"""


def test_what_raises_in_the_consumer_is_set_aside_at_once(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(COPY_QUEUE, changed("headers", "argsrepr", to="deadly"))
        with fleet.worker(before=CRASHING.format(act='raise KeyError("unforeseen")')) as worker:
            until(lambda: client.llen(QUARANTINE), "it is set aside")
            until(lambda: not client.hlen(UNACKED), "it is not held back")
            assert worker.process.poll() is None
        (kept,) = client.lrange(QUARANTINE, 0, -1)

    assert "KeyError" in json.loads(kept)["reason"]


@pytest.mark.slow
def test_what_ends_its_process_again_and_again_is_set_aside(redis_url: str, tmp_path: Path) -> None:
    """The process ends without a word each time; its message comes again, as after a visibility timeout."""
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_VISIBILITY_TIMEOUT": "5"})
    message = good()
    message["headers"] |= {"argsrepr": "deadly", "redelivered": True}
    tag = message["properties"]["delivery_tag"]
    with redis.Redis.from_url(redis_url) as client:
        client.hset("snapferry:suspects", tag, MAX_CRASHES - 1)
        client.lpush(COPY_QUEUE, json.dumps(message))
        with fleet.worker("one", before=CRASHING.format(act="os._exit(9)")) as one:
            assert one.process.wait(PATIENCE_S) == 9
        assert client.hlen(UNACKED) == 1
        with fleet.worker("two", before=CRASHING.format(act="os._exit(9)")) as two:
            until(lambda: client.llen(QUARANTINE), "it is set aside")
            assert two.process.poll() is None
        (kept,) = client.lrange(QUARANTINE, 0, -1)

    assert json.loads(kept)["reason"] == f"it ended its worker {MAX_CRASHES} times"
