"""Nothing is left over: no process, temporary file, upload, lease or message."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

import redis

from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger.keys import OPEN, PARKED, WORKING
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, lists
from tests.chaos.world import VISIBILITY_S, World
from tests.integration.processes import command_of, marked

from .clauses import clause

# Seconds in which a fleet without jobs puts its things in order.
_BOUND_S: Final = 60.0

# Seconds after the visibility timeout in which a message is delivered again and acknowledged.
_REDELIVERED_S: Final = 60.0


@clause("no process is left over", _BOUND_S)
def processes(world: World) -> Iterator[str]:
    for role in world.roles:
        for past in role.past:
            for process in [] if past is role.running else marked(past.mark):
                yield f"{role.name} has ended, but {process} has not: {command_of(process)[:80]}"


def is_temporary(name: str) -> bool:
    """Return whether *name* is that of a temporary file of a store or of a tree."""
    return name.startswith((".tmp-", ".parts-")) or (name.startswith(".snapferry-") and name.endswith(".tmp"))


@clause("no temporary file is left over")
def temporary_files(world: World) -> Iterator[str]:
    """Check all places. A killed worker leaves such files where the next job removes them: a lost job has no next."""
    if not world.may_forget:
        yield from all_temporary_files(world)


def all_temporary_files(world: World) -> Iterator[str]:
    """Yield each temporary file in a store or in a tree."""
    for root in [*world.destinations, *world.mirrors, world.sources[0], world.pulled]:
        for folder, _, names in os.walk(root):
            yield from (f"{folder}/{name}" for name in names if is_temporary(name))


@clause("no upload is left over")
def uploads(world: World) -> Iterator[str]:
    """Check the bucket. The next delivery aborts the upload of a killed worker, and a lost job has no next one."""
    if not world.may_forget:
        yield from world.server.unfinished_uploads(world.bucket)


def _client(world: World) -> redis.Redis:
    return world.redis.client(timeout_s=10)


@clause("no lease is left over", _BOUND_S)
def leases(world: World) -> Iterator[str]:
    with _client(world) as client:
        for key in client.scan_iter("snapferry:job:*", count=1000):
            if key.rpartition(":")[2] in WORKING:
                yield key


@clause("no message is left over", _BOUND_S)
def messages(world: World) -> Iterator[str]:
    with _client(world) as client:
        queues = {*lists(COPY_QUEUE), *lists(PLAN_QUEUE), *client.scan_iter(f"{COPY_QUEUE}.*", count=1000)}
        for name in sorted(queues):
            if client.type(name) == "list" and (count := client.llen(name)):
                yield f"{count} in {name!r}"
        # Celery delivers it again after the visibility timeout: until then a killed worker's messages wait.
        after_s = VISIBILITY_S + _REDELIVERED_S + world.slack_s
        latest = time.time() - after_s
        if count := client.zcount(f"{UNACKED}_index", "-inf", latest):
            yield f"{count} unacknowledged for {after_s:.0f} s"
        for key in (OPEN, PARKED):
            if client.exists(key):
                yield key
