"""
Entries of the schedule: what runs and when is from this process's own file, and when it last ran from Redis.

RedBeat reads all of it from Redis. One entry that another program wrote there would end every scheduler, or let it
queue any message.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from redbeat.schedulers import RedBeatSchedulerEntry, get_redis

log = logging.getLogger(__name__)


class OwnEntry(RedBeatSchedulerEntry):
    """An entry of the schedule of its app. `from_key` raises KeyError for any other one, which is then removed."""

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
