"""The limits, and what was granted of them, in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import redis

from snapferry.stores.urls import StoreURL, is_metered, parse_url
from snapferry.workers.ledger.keys import LIMITS, S3_REQUESTS, key
from snapferry.workers.messages import Limits

from . import scripts

# A worker that was not heard of for so long, in seconds, holds no objects in flight any more.
HELD_S: Final = 10

_STORES: Final = "snapferry:limits:stores"

# The field in a store's limits that says that its kind's default does not count.
_NO_DEFAULT: Final = "no_default"

Change = int | None | Literal["default"]
"""What a limit of a store is to become: a number, none at all, or what stores of its kind have."""


class Kind(StrEnum):
    """What is counted a second. The value is the limit's name."""

    BYTES = "rate"
    REQUESTS = "requests"


class Bucket(NamedTuple):
    """One limit that a run keeps to: of *kind*, at one store (*place*), which is the job's source or destination."""

    job_id: str
    side: str
    place: str
    kind: Kind

    @property
    def counts_for_job(self) -> bool:
        """Say whether the job's own limit counts here: of bytes, those read from the source do."""
        return self.kind is Kind.REQUESTS or self.side == "source"

    def keys(self) -> list[str]:
        """Return the keys that the scripts want."""
        of_job = f"snapferry:pace:{self.kind}:job:{self.job_id}:{self.side}"
        of_store = f"snapferry:pace:{self.kind}:store:{self.place}"
        return [
            key(self.job_id), of_job, f"{of_job}:takers", store_key(self.place), of_store, f"{of_store}:jobs",
        ]  # fmt: skip

    def fields(self) -> list[str]:
        """Return the limit's field in the job's record, "" if none counts, in the store's, and its default's."""
        default = _default_field(self.place) if self.kind is Kind.REQUESTS else ""
        return [LIMITS[self.kind] if self.counts_for_job else "", str(self.kind), default]


class StoreLimits(Limits):
    """What holds at a store, for all jobs together. *by_default*: its *requests* are those of stores of its kind."""

    by_default: bool = False


class Grant(NamedTuple):
    """
    *amount* may be used in *wait_s* seconds; 0: then ask again. Not *limited*: take what you like.

    *most* would have been granted, if as many were wanted.
    """

    amount: int
    wait_s: float
    limited: bool = True
    most: int = 0


def store_place(url: str | StoreURL) -> str:
    """Return what a store's limits go by: its *url* without what says only how to get there."""
    found = parse_url(url) if isinstance(url, str) else url
    endpoint = found.option("endpoint_url")
    return str(found).partition("?")[0] + (f"?endpoint_url={endpoint}" if endpoint else "")


def _default_field(place: str) -> str:
    """Return the field in a job's record of the requests that a store of this kind keeps to, "" if it has none."""
    return S3_REQUESTS if is_metered(place) else ""


def store_key(place: str) -> str:
    """Return the key of a store's limits."""
    return f"snapferry:limits:store:{place}"


class LimitBook:
    """
    The limits on one Redis server.

    Every method may be called again. All raise `redis.exceptions.RedisError`
    once the client's patience with an outage is at its end; a grant that was on
    its way then counts as used.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._scripts: dict[str, Any] = {}

    def _run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        found = self._scripts.get(script)
        if found is None:
            found = self._scripts[script] = self._redis.register_script(script)
        return found(keys=keys, args=arguments)

    def of_job(self, job_id: str) -> Limits:
        """Return a job's own limits; none for a job that is unknown."""
        found = self._redis.hmget(key(job_id), list(LIMITS.values()))
        return _limits(dict(zip(LIMITS, found, strict=True)))

    def of_store(self, place: str, s3_requests: int | None) -> StoreLimits:
        """Return the limits of a store by its `store_place`, for jobs with this default."""
        return _store_limits(place, self._redis.hgetall(store_key(place)), s3_requests)

    def of_stores(self, s3_requests: int | None) -> dict[str, StoreLimits]:
        """Return every store of whose limits one was set, for jobs with this default."""
        places = sorted(map(str, self._redis.smembers(_STORES)))
        return {place: self.of_store(place, s3_requests) for place in places}

    def of_run(self, job_id: str, places: list[str]) -> tuple[Limits, list[StoreLimits]]:
        """Return the limits of a job and of stores, in one reading."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(key(job_id), [*LIMITS.values(), S3_REQUESTS])
            for place in places:
                pipe.hgetall(store_key(place))
            (*job, default), *stores = pipe.execute()
        of_stores = [
            _store_limits(place, found, int(default) if default else None)
            for place, found in zip(places, stores, strict=True)
        ]
        return _limits(dict(zip(LIMITS, job, strict=True))), of_stores

    def limit_job(self, job_id: str, changed: Mapping[str, int | None]) -> str:
        """
        Set limits of a job, None: take them away; return its state, "" if there is no such job.

        Nothing changes in one that has ended. Who works for the job keeps to it within a second.
        """
        pairs = [part for name, value in changed.items() for part in (LIMITS[name], _text(value))]
        return str(self._run(scripts.LIMIT_JOB, [key(job_id)], pairs))

    def limit_store(self, place: str, changed: Mapping[str, Change]) -> None:
        """Set limits of a store, for all jobs; None: take them away."""
        fields = {name: "" if value == "default" else _text(value) for name, value in changed.items()}
        if Kind.REQUESTS in changed and _default_field(place):
            fields[_NO_DEFAULT] = "1" if changed[Kind.REQUESTS] is None else ""
        pairs = [part for pair in fields.items() for part in pair]
        self._run(scripts.LIMIT_STORE, [store_key(place), _STORES], [place, *pairs])

    def take(self, bucket: Bucket, taker: str, wanted: int, *, now: float | None = None) -> Grant:
        """
        Ask for *wanted* bytes or requests for *taker*, a process of the fleet; some may be granted, all, or none.

        *now* is for tests, in seconds; they then live by a clock of their own.
        """
        arguments = [*bucket.fields(), bucket.job_id, taker, wanted, "" if now is None else now]
        amount, wait_s, limited, most = self._run(scripts.TAKE, bucket.keys(), arguments)
        return Grant(int(amount), float(wait_s), bool(limited), int(most))

    def give_back(self, bucket: Bucket, taker: str, amount: int) -> None:
        """Give back what was granted and not used."""
        self._run(scripts.GIVE_BACK, bucket.keys(), [*bucket.fields(), bucket.job_id, taker, amount, ""])

    def share(
        self,
        job_id: str,
        places: tuple[str, str],
        member: str,
        *,
        wanted: int,
        in_flight: int,
        now: float | None = None,
    ) -> int | None:
        """
        Return how many objects *member*, a run of a batch, may have in flight; None: as many as it likes.

        It could use *wanted* and has *in_flight*. To be asked again well within `HELD_S`; 0 wanted: it leaves.
        """
        keys = [key(job_id), key(job_id, "flights"), key(job_id, "flights:held")]
        for place in places:
            flights = f"snapferry:flights:store:{place}"
            keys += [store_key(place), flights, f"{flights}:held"]
        arguments = [job_id, member, wanted, in_flight, HELD_S, "" if now is None else now]
        found = int(self._run(scripts.SHARE, keys, arguments))
        return None if found < 0 else found


def _limits(found: Mapping[Any, Any]) -> Limits:
    return Limits(**{name: int(value) for name, value in found.items() if value and name in LIMITS})


def _store_limits(place: str, found: Mapping[Any, Any], s3_requests: int | None) -> StoreLimits:
    limits = _limits(found).model_dump()
    default = s3_requests if _default_field(place) else None
    if default is None or limits["requests"] is not None or _NO_DEFAULT in found:
        return StoreLimits(**limits)
    return StoreLimits(**limits | {"requests": default}, by_default=True)


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
