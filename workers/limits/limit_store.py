"""The limits of jobs and stores, and what was granted of them, in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import redis

from snapferry.stores.urls import StoreURL, is_metered, parse_url
from snapferry.workers.ledger.keys import LIMIT_FIELDS, S3_REQUESTS_FIELD, job_key
from snapferry.workers.lua import RedisKey, ScriptRunner
from snapferry.workers.messages import Limits
from snapferry.workers.messages.base import LARGEST
from snapferry.workers.redis_json import count_of

from . import scripts

# Seconds after which the objects in flight of a worker that does not report any more are forgotten.
HELD_S: Final = 10

_STORES: Final = RedisKey("snapferry:limits:stores")

# The field in a store's limits that removes the default of its kind.
_NO_DEFAULT: Final = "no_default"

Change = int | None | Literal["default"]
"""The new value of a store's limit: a number, None for no limit, or the default of stores of its kind."""


class LimitKind(StrEnum):
    """What is counted per second. The value is the limit's name."""

    BYTES = "rate"
    REQUESTS = "requests"


class LimitScope(NamedTuple):
    """Where a run of a job keeps to limits of a *kind*: at one *store*, which is its source or destination (*side*)."""

    job_id: str
    side: str
    store: str
    kind: LimitKind

    @property
    def counts_for_job(self) -> bool:
        """Return whether the job's own limit counts here. Its limit of bytes counts only at the source."""
        return self.kind is LimitKind.REQUESTS or self.side == "source"

    def keys(self) -> list[RedisKey]:
        """Return the keys of the scripts `TAKE` and `REFUND`."""
        of_job = f"snapferry:pace:{self.kind}:job:{self.job_id}:{self.side}"
        of_store = f"snapferry:pace:{self.kind}:store:{self.store}"
        return [
            job_key(self.job_id), RedisKey(of_job), RedisKey(f"{of_job}:takers"),
            store_key(self.store), RedisKey(of_store), RedisKey(f"{of_store}:jobs"),
        ]  # fmt: skip

    def fields(self) -> list[str]:
        """
        Return the names of the fields with the limit, "" for none.

        They are the job's limit in the job's record, the store's limit, and its default in the job's record.
        """
        default = _default_field(self.store) if self.kind is LimitKind.REQUESTS else ""
        return [LIMIT_FIELDS[self.kind] if self.counts_for_job else "", str(self.kind), default]


class StoreLimits(Limits):
    """The limits of a store, for all jobs together. *by_default*: *requests* is the default of stores of its kind."""

    by_default: bool = False


class Grant(NamedTuple):
    """
    The answer to a request: *amount* may be used in *wait_s* seconds. If *amount* is 0, ask again after that time.

    If not *limited*, any amount may be used. *most* is the largest amount that could have been granted.
    """

    amount: int
    wait_s: float
    limited: bool = True
    most: int = 0


def store_id(url: str | StoreURL) -> str:
    """Return the id of a store for its limits: its *url* without the options that only tell how to connect."""
    found = parse_url(url) if isinstance(url, str) else url
    endpoint = found.option("endpoint_url")
    return str(found).partition("?")[0] + (f"?endpoint_url={endpoint}" if endpoint else "")


def store_key(store: str) -> RedisKey:
    """Return the key of the limits of a store, which is named by its `store_id`."""
    return RedisKey(f"snapferry:limits:store:{store}")


def _default_field(store: str) -> str:
    """Return the field in a job's record with the default requests per second of this store, "" if it has none."""
    return S3_REQUESTS_FIELD if is_metered(store) else ""


class LimitStore:
    """
    The limits on one Redis server.

    Every method may be repeated. All raise `redis.exceptions.RedisError` when the client stops retrying. A grant that
    was not received then counts as used.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._run = ScriptRunner(client).run

    def store_limits(self, store: str, s3_requests: int | None) -> StoreLimits:
        """Return the limits of a store. *s3_requests* is the default of the job that asks."""
        return _store_limits(store, self._redis.hgetall(store_key(store)), s3_requests)

    def all_store_limits(self, s3_requests: int | None) -> dict[str, StoreLimits]:
        """Return the limits of all stores for which a limit was set."""
        stores = sorted(map(str, self._redis.smembers(_STORES)))
        return {store: self.store_limits(store, s3_requests) for store in stores}

    def limits_of_run(self, job_id: str, stores: list[str]) -> tuple[Limits, list[StoreLimits]]:
        """Return the limits of a job and of *stores*, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(job_key(job_id), [*LIMIT_FIELDS.values(), S3_REQUESTS_FIELD])
            for store in stores:
                pipe.hgetall(store_key(store))
            (*of_job, default), *of_stores = pipe.execute()
        limits = [
            _store_limits(store, found, _number(default))
            for store, found in zip(stores, of_stores, strict=True)
        ]
        return _limits(dict(zip(LIMIT_FIELDS, of_job, strict=True))), limits

    def set_job_limits(self, job_id: str, changed: Mapping[str, int | None]) -> str:
        """
        Set limits of a job, None to remove one. Return the job's state, "" if there is no such job.

        A job that has ended stays as it is. All workers of the job keep to the new limits within a second.
        """
        pairs = [part for name, value in changed.items() for part in (LIMIT_FIELDS[name], _text(value))]
        return str(self._run(scripts.LIMIT_JOB, [job_key(job_id)], pairs))

    def set_store_limits(self, store: str, changed: Mapping[str, Change]) -> None:
        """Set limits of a store for all jobs, None to remove one."""
        fields = {name: "" if value == "default" else _text(value) for name, value in changed.items()}
        if LimitKind.REQUESTS in changed and _default_field(store):
            fields[_NO_DEFAULT] = "1" if changed[LimitKind.REQUESTS] is None else ""
        pairs = [part for pair in fields.items() for part in pair]
        self._run(scripts.LIMIT_STORE, [store_key(store), _STORES], [store, *pairs])

    def take(self, scope: LimitScope, process: str, wanted: int, *, now: float | None = None) -> Grant:
        """
        Request *wanted* bytes or requests for a *process* of the fleet. All, some or none may be granted.

        *now*, in seconds, is for tests with a clock of their own.
        """
        arguments: list[str | float] = [
            *scope.fields(),
            scope.job_id,
            process,
            wanted,
            "" if now is None else now,
        ]
        amount, wait_s, limited, most = self._run(scripts.TAKE, scope.keys(), arguments)
        return Grant(int(amount), float(wait_s), bool(limited), int(most))

    def refund(self, scope: LimitScope, process: str, amount: int) -> None:
        """Return an *amount* that was granted and not used. Not to be repeated: it adds."""
        self._run(scripts.REFUND, scope.keys(), [*scope.fields(), scope.job_id, process, amount, ""])

    def share(
        self,
        job_id: str,
        stores: tuple[str, str],
        member: str,
        *,
        wanted: int,
        in_flight: int,
        now: float | None = None,
    ) -> int | None:
        """
        Return how many objects *member*, a run of a batch, may have in flight. None: no limit.

        The member could use *wanted* objects and has *in_flight*. It must ask again well within `HELD_S` seconds, and
        ask for 0 when it ends.
        """
        keys = [job_key(job_id), job_key(job_id, "flights"), job_key(job_id, "flights:held")]
        for store in stores:
            flights = f"snapferry:flights:store:{store}"
            keys += [store_key(store), RedisKey(flights), RedisKey(f"{flights}:held")]
        arguments: list[str | float] = [job_id, member, wanted, in_flight, HELD_S, "" if now is None else now]
        found = int(self._run(scripts.SHARE, keys, arguments))
        return None if found < 0 else found


def _limits(found: Mapping[Any, Any]) -> Limits:
    return Limits(**{name: _number(found.get(name)) for name in LIMIT_FIELDS})


def _number(found: object) -> int | None:
    """Return a limit from Redis, None for a text that another program may have written: it limits nothing."""
    number = count_of(str(found or "")) or 0
    return number if 1 <= number <= LARGEST else None


def _store_limits(store: str, found: Mapping[Any, Any], s3_requests: int | None) -> StoreLimits:
    limits = _limits(found).model_dump()
    default = s3_requests if _default_field(store) else None
    if default is None or limits["requests"] is not None or _NO_DEFAULT in found:
        return StoreLimits(**limits)
    return StoreLimits(**limits | {"requests": default}, by_default=True)


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
