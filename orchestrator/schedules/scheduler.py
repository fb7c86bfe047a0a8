"""
RedBeat's scheduler, which writes its schedule only while it holds the lock.

RedBeat itself replaces the schedule in Redis when it starts, and takes the lock afterwards. A second scheduler with
another file would silently replace the mirrors and scrubs of the first. This scheduler changes nothing without the
lock. It waits, and logs an error if the schedule in Redis differs from its own.
"""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from celery.signals import beat_init
from redbeat.schedulers import (
    LUA_EXTEND_TO_SCRIPT,
    RedBeatJSONEncoder,
    RedBeatScheduler,
    RedBeatSchedulerEntry,
    acquire_distributed_beat_lock,
    get_redis,
)

from snapferry.stores.text.printable import printable
from snapferry.workers.broker.connection import OUTAGE
from snapferry.workers.ledger import FreshnessLedger, ScrubLedger
from snapferry.workers.ledger.keys import SCHEDULE, SCRUB
from snapferry.workers.messages import ScrubMessage
from snapferry.workers.redis_json import parse_json
from snapferry.workers.telemetry.logs import fields

from .cycle import begin_cycle
from .schedule import RUN_SCRUB

log = logging.getLogger(__name__)

RUNNING_KEY: Final = f"{SCHEDULE}:running"
"""The key of the running schedule: digest, entries and host of the scheduler that holds the lock, as JSON."""

# The space of the ids of messages.
_MESSAGES: Final = uuid.UUID("0d1f4f0f-4f0c-5a55-a0b4-2f2f4c8c3c11")

# Seconds between two log lines while another scheduler works.
_LOG_EVERY_S: Final = 300.0


class OwnEntry(RedBeatSchedulerEntry):
    """
    An entry of the schedule of its app. `from_key` raises KeyError for any other one, which is then removed.

    What runs and when is from the process's own file, and only the time of the last run from Redis. RedBeat reads all
    of it from Redis. One entry that another program wrote there would end every scheduler, or let it queue any message.
    """

    @classmethod
    def from_key(cls, key: str, app: Any = None) -> OwnEntry:
        """Return the entry that *key* names."""
        name = key.removeprefix(app.redbeat_conf.key_prefix)
        own = app.conf.beat_schedule.get(name)
        if own is None or not key.startswith(app.redbeat_conf.key_prefix):
            raise KeyError(key)
        definition, text = get_redis(app).hmget(key, ["definition", "meta"])
        if not definition:
            # It was never saved, or somebody deleted it.
            raise KeyError(key)
        meta = _meta(text, name)
        entry = cls(app=app, name=name, **own, total_run_count=meta["total_run_count"])
        # Celery would set the time of now.
        entry.last_run_at = meta["last_run_at"]
        return entry


class LockedScheduler(RedBeatScheduler):
    """For Celery's setting ``beat_scheduler``."""

    Entry = OwnEntry

    def setup_schedule(self) -> None:
        """Do nothing yet: the schedule in Redis may belong to another scheduler."""

    def take_over(self, lock: Any) -> None:
        """Write this scheduler's own schedule to Redis. The *lock* is held."""
        self.lock = lock
        conf = self.app.redbeat_conf
        if conf.schedule:
            # Before the entries themselves: an entry that no name leads to would run for ever.
            get_redis(self.app).sadd(conf.statics_key, *conf.schedule)
        super().setup_schedule()
        scrubs = ScrubLedger(get_redis(self.app))
        for entry in self.app.conf.beat_schedule.values():
            if entry.get("task") == RUN_SCRUB:
                # From now on the age of what was never read is counted.
                begin_cycle(scrubs, ScrubMessage.model_validate(entry["args"][0]))
        # A mirror or scrub that is not in the file any more stays expected, until an operator forgets it.
        FreshnessLedger(get_redis(self.app)).expect(self.app.conf.snapferry_expected, replace=True)
        get_redis(self.app).set(RUNNING_KEY, json.dumps(_summary(self.app.conf.beat_schedule)))

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        """
        Queue the message that *entry* is due, and record that after it.

        Celery records it before, so a scheduler that dies in between would lose a run. This one queues the message a
        second time, with the same id, from which the id of the job follows (`due`).
        """
        if entry.last_run_at is not None:
            task_id = uuid.uuid5(_MESSAGES, f"{entry.name} {entry.last_run_at.isoformat()}")
            # Of this object alone: an entry is read from Redis each time.
            entry.options = {**entry.options, "task_id": str(task_id)}
        sent = super().apply_async(entry, producer, advance=False, **options)
        if advance:
            self.reserve(entry)
        return sent


def _meta(text: str | None, name: str) -> dict[str, Any]:
    """Return when an entry last ran, and how often it has. One whose record is damaged is due now."""
    try:
        found = RedBeatSchedulerEntry.decode_meta(text)
        last, count = found["last_run_at"], found.get("total_run_count", 0)
        if last is not None and not (isinstance(last, datetime) and last.utcoffset() is not None):
            raise TypeError("no time with a zone")
        return {"last_run_at": last, "total_run_count": count if isinstance(count, int) else 0}
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        log.warning("record of the last run of %s is damaged: %s", name, str(error)[:200])
        return {"last_run_at": None, "total_run_count": 0}


def _summary(schedule: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(schedule, sort_keys=True, cls=RedBeatJSONEncoder)
    return {
        "digest": sha256(text.encode()).hexdigest(),
        "mirrors": sorted(schedule),
        "host": socket.gethostname(),
    }


def wait_for_the_lock(sender: Any = None, **_: Any) -> None:
    """Wait until this scheduler holds the lock; then take the schedule over."""
    scheduler = sender.scheduler
    redis = get_redis(scheduler.app)
    lock = redis.lock(scheduler.lock_key, timeout=scheduler.lock_timeout)
    # RedBeat sets the remaining time; redis-py would add to it.
    lock.lua_extend = redis.register_script(LUA_EXTEND_TO_SCRIPT)
    own = _summary(scheduler.app.conf.beat_schedule)
    logged_at = None
    while True:
        try:
            if lock.acquire(blocking=False):
                scheduler.take_over(lock)
                log.info("schedule taken over", extra=fields(mirrors=own["mirrors"]))
                return
            if logged_at is None or time.monotonic() - logged_at > _LOG_EVERY_S:
                _log_other(own, redis.get(RUNNING_KEY))
                logged_at = time.monotonic()
        except OUTAGE as error:
            log.warning("the broker does not answer: %s", error)
        time.sleep(scheduler.max_interval)


def _log_other(own: dict[str, Any], found: str | None) -> None:
    try:
        other = parse_json(found or "{}")
        same, mirrors, host = other["digest"] == own["digest"], list(other["mirrors"]), str(other["host"])
    except (ValueError, KeyError, TypeError):
        log.warning("another scheduler runs; waiting until it ends")
        return
    if same:
        log.info("another scheduler runs this schedule; waiting until it ends", extra=fields(host=host))
        return
    log.error(
        "another scheduler runs a different schedule: the %s of this one do not run until it ends. Give all"
        " schedulers of a fleet the same snapferry.toml, and restart the active one",
        "mirrors and scrubs" if any(name.startswith(f"{SCRUB}:") for name in own["mirrors"]) else "mirrors",
        extra=fields(
            host=printable(host)[:255],
            runs=[printable(str(name))[:64] for name in mirrors[:100]],
            waits=own["mirrors"],
        ),
    )


beat_init.disconnect(acquire_distributed_beat_lock)
beat_init.connect(wait_for_the_lock)
