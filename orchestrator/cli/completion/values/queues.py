"""The queues of batches: those in snapferry.toml, and those that the fleet serves or that its open jobs use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import click
from click.shell_completion import CompletionItem
from redis.exceptions import RedisError

from snapferry.workers.broker.connection import BrokerUnavailable, fail_fast_client
from snapferry.workers.ledger import Ledger
from snapferry.workers.ledger.keys import ROSTER_S
from snapferry.workers.queues import COPY_QUEUE, NAME, copy_queue
from snapferry.workers.reachability.worker_roster import WorkerRoster
from snapferry.workers.settings.environment import InvalidSettings

from .configured import queue_users
from .settings import settings_of

_DEFAULT: Final = "default"

# Seconds in which Redis answers each request: so short that names in the file are offered without it.
_ANSWER_S: Final = 0.5

# Open jobs whose queues are asked for.
_MOST_ASKED: Final = 1000

_is_name = re.compile(NAME).fullmatch


def queues(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield the names of queues, each with who uses or serves it; ``default`` is the queue of jobs without a name."""
    found = {_DEFAULT: "jobs without a queue"} | {
        name: ", ".join(users) for name, users in queue_users(ctx).items() if _is_name(name)
    }
    # Names in the file do not depend on Redis.
    with suppress(RedisError, OSError, BrokerUnavailable, InvalidSettings):
        for name, text in _of_fleet(ctx).items():
            found[name] = text if name not in found else f"{found[name]}; {text}"
    for name in sorted(found):
        if name and name.startswith(incomplete):
            yield CompletionItem(name, help=found[name])


def _of_fleet(ctx: click.Context) -> dict[str, str]:
    settings = settings_of(ctx)
    if settings.broker_url is None:
        return {}
    with fail_fast_client(settings.broker_url, _ANSWER_S) as client:
        live = [each for each in WorkerRoster(client).registered() if each.silent_s <= ROSTER_S]
        serving = Counter(name for each in live for name in {_name(queue) for queue in each.queues} if name)
        ledger = Ledger(client, expires_s=settings.job_expires)
        statuses = ledger.statuses(ledger.open_jobs()[:_MOST_ASKED])
        waiting = {status.queue or _DEFAULT for status in statuses}
    texts = {name: f"workers: {count}" for name, count in serving.items()}
    return {name: "no worker" for name in waiting if _is_name(name)} | texts


def _name(queue: str) -> str:
    """Return the name of a *queue* as ``--queue`` takes it, "" for a queue of another kind."""
    if queue == COPY_QUEUE:
        return _DEFAULT
    name = queue.removeprefix(f"{COPY_QUEUE}.")
    return name if _is_name(name) and queue == copy_queue(name) else ""
