"""The records of mirrors and scrubs in an export: when each last succeeded, and how far each scrub is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import redis
from pydantic import ValidationError

from snapferry.workers.ledger import FreshnessLedger
from snapferry.workers.ledger.freshness import EXPECTED
from snapferry.workers.ledger.keys import MIRROR, MIRROR_SUCCESSES, SCRUB
from snapferry.workers.lua import RedisKey

from .document import ExportedSchedule, ExportedScrub

_COUNTS: Final = frozenset(
    name for name, field in ExportedScrub.model_fields.items() if field.annotation is int
)
_SCRUB_PARTS: Final = ("state", "verified", "findings")


def exported_schedules(client: redis.Redis) -> Iterator[ExportedSchedule]:
    """Yield the records of all mirrors and scrubs that are expected to run. A damaged record is left out."""
    for fresh in FreshnessLedger(client).freshness():
        kind, name = fresh.expected.kind, fresh.expected.name
        record = _record(kind, name)
        found: Any = client.hgetall(record)
        success: Any = client.zscore(MIRROR_SUCCESSES, name) if kind == MIRROR else None
        # Values that cannot be right end in a ValidationError.
        with suppress(ValidationError):
            yield ExportedSchedule(
                kind=kind,
                name=name,
                every=fresh.expected.every,
                late_after=fresh.expected.late_after,
                since=fresh.since if kind == MIRROR else float(found.get("since") or fresh.since),
                removed_at=fresh.removed_at,
                success_at=float(success or 0),
                job=found.get("job", ""),
                started_at=float(found.get("started_at") or 0),
                scrub=_scrub(client, record) if kind == SCRUB else None,
            )


def _scrub(client: redis.Redis, record: str) -> Any:
    state, verified, findings = (RedisKey(f"{record}:{part}") for part in _SCRUB_PARTS)
    found: Any = client.hgetall(state)
    if not found:
        return None
    shares: Any = client.zrange(verified, 0, -1, withscores=True)
    counts: Any = client.hgetall(findings)
    known = ExportedScrub.model_fields.keys() & found.keys()
    # Redis has texts. A text that is no number is refused with the others.
    values = {name: _number(found[name]) if name in _COUNTS else found[name] for name in known if found[name]}
    return values | {
        "verified": dict(shares),
        "findings": {share: _number(count) for share, count in counts.items()},
    }


def _number(text: str) -> Any:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text


def import_schedule(client: redis.Redis, schedule: ExportedSchedule) -> None:
    """
    Merge the records of a mirror or scrub into those of Redis, which stay where they are newer. May be repeated.

    So that lateness stays true: a success never replaces a later one, and what is expected was expected since the
    earlier of both times. A scrub's position replaces only that of a scrub that has read nothing yet.
    """
    record = _record(schedule.kind, schedule.name)
    found: Any = client.hgetall(record)
    key = f"{schedule.kind}:{schedule.name}"
    known = client.sismember(EXPECTED, key)
    scrub = _scrub_to_write(client, record, schedule)
    with client.pipeline(transaction=True) as pipe:
        pipe.sadd(EXPECTED, key)
        if not known:
            pipe.hset(record, "every", schedule.every)
            for name, value in (("late_after", schedule.late_after), ("removed_at", schedule.removed_at)):
                if value:
                    pipe.hset(record, name, value)
        before = float(found.get("since") or schedule.since)
        pipe.hset(record, "since", min(before, schedule.since))
        if schedule.job and not found.get("job"):
            pipe.hset(record, mapping={"job": schedule.job, "started_at": schedule.started_at})
        if schedule.success_at and schedule.kind == MIRROR:
            pipe.zadd(MIRROR_SUCCESSES, {schedule.name: schedule.success_at}, gt=True)
        if scrub is not None:
            state, verified, findings = (RedisKey(f"{record}:{part}") for part in _SCRUB_PARTS)
            pipe.delete(state, verified, findings)
            fields: Any = scrub.model_dump(exclude={"verified", "findings"}, exclude_defaults=True)
            pipe.hset(state, mapping=fields)
            if scrub.verified:
                pipe.zadd(verified, dict(scrub.verified))
            if scrub.findings:
                counts: Any = scrub.findings
                pipe.hset(findings, mapping=counts)
        pipe.execute()


def _scrub_to_write(client: redis.Redis, record: str, schedule: ExportedSchedule) -> ExportedScrub | None:
    if schedule.scrub is None or schedule.kind != SCRUB:
        return None
    state, verified = RedisKey(f"{record}:state"), RedisKey(f"{record}:verified")
    cycle, settled = client.hmget(state, ["cycle", "settled"])
    has_read = bool(client.zcard(verified)) or bool(settled) or cycle not in (None, "1")
    return None if has_read else schedule.scrub


def _record(kind: str, name: str) -> RedisKey:
    return RedisKey(f"snapferry:{kind}:{name}")
