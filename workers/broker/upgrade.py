"""
Restore messages that an earlier version left in Redis under a name that this version does not use.

Earlier versions kept unacknowledged messages in Celery's default hash ``unacked``, which all Celery applications on a
database share. Their workers restore these messages. When the last of these workers is gone, the rest would stay there
forever. So an orchestrator requeues the messages of this project that are older than the visibility timeout, and
touches no other message.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

import redis
from celery import Celery, signals
from redis.exceptions import NoPermissionError, RedisError

from snapferry.workers.lua import LuaScript
from snapferry.workers.queues import PLAN_QUEUE, STEPS, lists
from snapferry.workers.redis_json import parse_json
from snapferry.workers.settings.environment import Settings

from .connection import client
from .message_validation import is_task_queue

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0

_PAGE: Final = 100
_MOST: Final = 10_000

_PUT_BACK: Final = LuaScript.load(__package__, "put_back")


def put_back_unacked(redis: redis.Redis, older_than_s: float) -> int:
    """Requeue messages that an earlier version has not acknowledged for *older_than_s* seconds; return how many."""
    put_back = redis.register_script(_PUT_BACK.text)
    count = 0
    ends = time.time() - older_than_s
    for first in range(0, _MOST, _PAGE):
        tags: Any = redis.zrange("unacked_index", 0, int(ends), byscore=True, offset=first, num=_PAGE)
        for tag in tags:
            found: Any = redis.hget("unacked", tag)
            place = _place(found)
            if place is not None:
                count += int(put_back(keys=["unacked_index", "unacked", place[0]], args=[tag, place[1]]))
        if len(tags) < _PAGE:
            break
    return count


def _place(found: str | None) -> tuple[str, str] | None:
    """Return the list and the message of an entry, None if it belongs to another application."""
    try:
        message, exchange, queue = parse_json(found or "null")
        if exchange or not is_task_queue(queue):
            return None
        step = message["properties"].get("priority") or 0
        message["headers"]["redelivered"] = True
        return lists(queue)[step if step in STEPS else 0], json.dumps(message)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def attach(app: Celery, settings: Settings) -> None:
    """Let orchestrators of *app* restore messages of an earlier version once a minute."""

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app and PLAN_QUEUE in app.amqp.queues.consume_from:
            sender.timer.call_repeatedly(EVERY_S, restore)

    def restore() -> None:
        assert settings.broker_url is not None  # make_app refuses settings without one
        try:
            broker = client(settings.broker_url, retries=0, answer_s=5)
            if count := put_back_unacked(broker, settings.visibility_timeout):
                log.warning("%d messages of an earlier version requeued", count)
        except NoPermissionError as error:
            log.debug("not allowed to look for messages of an earlier version: %s", error)
        except RedisError as error:
            log.warning("cannot look for messages of an earlier version: %s", error)

    signals.worker_ready.connect(ready, weak=False)
