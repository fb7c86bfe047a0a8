"""Messages in the queues are lost, duplicated, revoked; others cannot be read."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress

import redis

from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, lists
from tests.chaos.world import World

from .registry import NotPossible, fault

# What is done to the messages of a queue is done to so many of each of its lists, at most.
_MOST = 20

MALFORMED = (
    "",
    "{}",
    "[]",
    "null",
    "7",
    "not json",
    json.dumps({"body": "%%%", "headers": [], "properties": {}}),
    json.dumps(
        {"body": "e30=", "content-type": "application/data", "properties": {"body_encoding": "base64"}}
    ),
    "[" * 5000,
    "\0\0\0",
)


def _client(world: World) -> redis.Redis:
    return world.redis.client()


def _waiting(client: redis.Redis) -> dict[str, list[str]]:
    """Return the messages of both queues: list -> messages."""
    names = [*lists(COPY_QUEUE), *lists(PLAN_QUEUE)]
    found = {name: [str(text) for text in client.lrange(name, 0, _MOST)] for name in names}
    if not any(found.values()):
        raise NotPossible("no message waits")
    return found


@fault("messages lost", slow=True)
def lost(world: World, chance: random.Random) -> Iterator[str]:
    with _client(world) as client:
        gone = client.delete(*lists(COPY_QUEUE), *lists(PLAN_QUEUE))
    if not gone:
        raise NotPossible("no message waits")
    yield f"{gone} lists"


@fault("messages duplicated")
def duplicated(world: World, chance: random.Random) -> Iterator[str]:
    with _client(world) as client:
        found = _waiting(client)
        for name, texts in found.items():
            if texts:
                client.lpush(name, *texts)
    yield f"{sum(map(len, found.values()))}"


@fault("messages malformed")
def malformed(world: World, chance: random.Random) -> Iterator[str]:
    queue = chance.choice([COPY_QUEUE, PLAN_QUEUE])
    with _client(world) as client:
        client.lpush(lists(queue)[0], *chance.sample(MALFORMED, 4))
    yield queue


@fault("messages revoked", slow=True)
def revoked(world: World, chance: random.Random) -> Iterator[str]:
    """Revoke what is in the queues, as Flower's button does."""
    terminate = chance.random() < 0.5
    with _client(world) as client:
        texts = [text for found in _waiting(client).values() for text in found]
    ids = []
    for text in texts:
        with suppress(ValueError, KeyError, TypeError):
            ids.append(json.loads(text)["headers"]["id"])
    world.jobs._app.control.revoke(ids, terminate=terminate)
    yield f"{len(ids)}{', running ones ended' if terminate else ''}"
