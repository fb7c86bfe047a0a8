"""
RedBeat's scheduler, which writes its schedule only while it holds the lock.

RedBeat replaces the schedule in Redis when it starts, and takes the lock afterwards: a second scheduler with another
file would silently put its mirrors in place of those of the first. Here a scheduler that does not have the lock
changes nothing. It waits, and says so loudly if the schedule that runs is another one than its own.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from hashlib import sha256
from typing import Any, Final

from celery.signals import beat_init
from redbeat.schedulers import (
    LUA_EXTEND_TO_SCRIPT,
    RedBeatJSONEncoder,
    RedBeatScheduler,
    acquire_distributed_beat_lock,
    get_redis,
)

from snapferry.stores.text.printable import printable
from snapferry.workers.broker.connection import OUTAGE
from snapferry.workers.ledger.keys import SCHEDULE
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

RUNNING_KEY: Final = f"{SCHEDULE}:running"
"""What the scheduler that holds the lock says of its schedule: JSON with digest, mirrors and host."""

# While another schedule runs, this is said so often.
_SAY_EVERY_S: Final = 300.0


class MirrorScheduler(RedBeatScheduler):
    """For Celery's setting ``beat_scheduler``."""

    def setup_schedule(self) -> None:
        """Do nothing yet: the schedule in Redis may be another scheduler's."""

    def take_over(self, lock: Any) -> None:
        """Put this scheduler's own schedule into Redis; the *lock* is held."""
        self.lock = lock
        super().setup_schedule()
        get_redis(self.app).set(RUNNING_KEY, json.dumps(_told(self.app.conf.beat_schedule)))


def _told(schedule: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(schedule, sort_keys=True, cls=RedBeatJSONEncoder)
    return {
        "digest": sha256(text.encode()).hexdigest(),
        "mirrors": sorted(schedule),
        "host": socket.gethostname(),
    }


def wait_for_the_lock(sender: Any = None, **_: Any) -> None:
    """Hold the scheduler back until it is its turn."""
    scheduler = sender.scheduler
    redis = get_redis(scheduler.app)
    lock = redis.lock(scheduler.lock_key, timeout=scheduler.lock_timeout)
    # What redis-py adds to the time that is left, RedBeat sets.
    lock.lua_extend = redis.register_script(LUA_EXTEND_TO_SCRIPT)
    own = _told(scheduler.app.conf.beat_schedule)
    said_at = None
    while True:
        try:
            if lock.acquire(blocking=False):
                scheduler.take_over(lock)
                log.info("this scheduler keeps the schedule", extra=fields(mirrors=own["mirrors"]))
                return
            if said_at is None or time.monotonic() - said_at > _SAY_EVERY_S:
                _say(own, redis.get(RUNNING_KEY))
                said_at = time.monotonic()
        except OUTAGE as error:
            log.warning("the broker is away: %s", error)
        time.sleep(scheduler.max_interval)


def _say(own: dict[str, Any], found: str | None) -> None:
    try:
        other = json.loads(found or "{}")
        same, mirrors, host = other["digest"] == own["digest"], list(other["mirrors"]), str(other["host"])
    except (ValueError, KeyError, TypeError):
        log.warning("another scheduler keeps the schedule; waiting until it ends")
        return
    if same:
        log.info("another scheduler keeps this schedule; waiting until it ends", extra=fields(host=host))
        return
    log.error(
        "another scheduler runs with ANOTHER schedule: the mirrors of this one are not run until it ends. Give all"
        " schedulers of a fleet the same snapferry.toml, and restart the one that runs",
        extra=fields(
            host=printable(host)[:255],
            runs=[printable(str(name))[:64] for name in mirrors[:100]],
            waits=own["mirrors"],
        ),
    )


beat_init.disconnect(acquire_distributed_beat_lock)
beat_init.connect(wait_for_the_lock)
