"""
The records of a mirror or a scrub as a document, for a machine whose Redis server ends with each run.

The document has all that later runs and lists need: the record of the runs, the last success, the state of a scrub, and
the status of the last job. It has no request of a job, and no list of objects.
"""

from __future__ import annotations

import math
from typing import Any, Final

import redis

from snapferry.workers.job_state import State
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import ScheduleKind, is_job_id

from .keys import MIRROR_SUCCESSES, SCRUB, job_key
from .queries import FIELDS

VERSION: Final = 1
"""The version of the document. A document of another version is not read."""

# More than any document can need: a scrub has at most 10,000 shares.
_MOST_ENTRIES: Final = 100_000
_LONGEST: Final = 65_536

_HASHES: Final = ("record", "state", "findings")


class InvalidState(Exception):
    """A document that is not one of these, or is of another version. The message explains why."""


def export_state(client: redis.Redis, kind: ScheduleKind, name: str) -> dict[str, Any]:
    """
    Return the document of a mirror or scrub, whose server ends now: a job that has not ended counts as cancelled.

    Raises what *client* raises.
    """
    keys = _keys(kind, name)
    found: dict[str, Any] = {"version": VERSION, "kind": kind, "name": name}
    for part, key in keys.items():
        if part in _HASHES:
            found[part] = client.hgetall(key)
        else:
            pairs: Any = client.zrange(key, 0, -1, withscores=True)
            found[part] = dict(pairs)
    if kind != SCRUB:
        success = client.zscore(MIRROR_SUCCESSES, name)
        found["success"] = {} if success is None else {name: success}
    job_id = found["record"].get("job", "")
    if is_job_id(job_id):
        values = client.hmget(job_key(job_id), FIELDS)
        job = {field: value for field, value in zip(FIELDS, values, strict=True) if value is not None}
        if job and job.get("state") not in [state.value for state in State if state.final]:
            job["state"] = State.CANCELLED.value
        found["job"] = job
    return found


def restore_state(client: redis.Redis, kind: ScheduleKind, name: str, document: Any) -> None:
    """
    Write a document of `export_state` into a server that has no record of this mirror or scrub.

    Raises `InvalidState`, and writes nothing then; and what *client* raises. May be repeated.
    """
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InvalidState(f"it is not a document of version {VERSION}")
    if (document.get("kind"), document.get("name")) != (kind, name):
        raise InvalidState(f"it is not that of {kind} {name}")
    wanted = (*_keys(kind, name), "success", "job")
    parts: dict[str, Any] = {part: _checked(document, part) for part in wanted}
    success = _scores({name: parts["success"][name]} if name in parts["success"] else {}, "success")
    with client.pipeline(transaction=True) as pipe:
        for part, key in _keys(kind, name).items():
            if not parts[part]:
                continue
            if part in _HASHES:
                pipe.hset(key, mapping=parts[part])
            else:
                pipe.zadd(key, _scores(parts[part], part))
        if success and kind != SCRUB:
            pipe.zadd(MIRROR_SUCCESSES, success)
        job_id = str(parts["record"].get("job", ""))
        if parts["job"] and is_job_id(job_id):
            known: Any = {field: value for field, value in parts["job"].items() if field in FIELDS}
            if known:
                pipe.hset(job_key(job_id), mapping=known)
        pipe.execute()


def _keys(kind: ScheduleKind, name: str) -> dict[str, RedisKey]:
    record = RedisKey(f"snapferry:{kind}:{name}")
    if kind != SCRUB:
        return {"record": record}
    return {
        "record": record,
        **{part: RedisKey(f"{record}:{part}") for part in ("state", "verified", "findings")},
    }


def _checked(document: dict[Any, Any], part: str) -> dict[str, Any]:
    found = document.get(part, {})
    if not isinstance(found, dict) or len(found) > _MOST_ENTRIES:
        raise InvalidState(f"its part {part} is not a table")
    for name, value in found.items():
        usable = isinstance(value, str | int | float) and not isinstance(value, bool)
        if not usable or len(str(name)) > _LONGEST or len(str(value)) > _LONGEST:
            raise InvalidState(f"its part {part} has a value that cannot be right")
    return found


def _scores(found: dict[str, Any], part: str) -> dict[str, float]:
    try:
        scores = {name: float(value) for name, value in found.items()}
    except (ValueError, OverflowError):
        scores = {"": math.nan}
    if not all(math.isfinite(score) for score in scores.values()):
        raise InvalidState(f"its part {part} has a time that is not a number")
    return scores
