"""The limits, and what was granted of them, in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import redis

from stores.urls import parse_url

from ..ledger.keys import LIMITS, key
from ..messages import Limits
from . import scripts

# A worker that was not heard of for so long, in seconds, holds no objects in flight any more.
HELD_S: Final = 10

_STORES: Final = "snapferry:limits:stores"


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
        """Return the limit's field in the job's record, "" if none counts, and in the store's."""
        return [LIMITS[self.kind] if self.counts_for_job else "", str(self.kind)]


class Grant(NamedTuple):
    """*amount* may be used in *wait_s* seconds; 0: then ask again. Not *limited*: take what you like."""

    amount: int
    wait_s: float
    limited: bool = True


def store_place(url: str) -> str:
    """Return what a store's limits go by: its *url* without what says only how to get there."""
    found = parse_url(url)
    endpoint = found.option("endpoint_url")
    return str(found).partition("?")[0] + (f"?endpoint_url={endpoint}" if endpoint else "")


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

    def of_store(self, place: str) -> Limits:
        """Return the limits of a store by its `store_place`."""
        return _limits(self._redis.hgetall(store_key(place)))

    def of_stores(self) -> dict[str, Limits]:
        """Return every store that has limits."""
        return {place: self.of_store(place) for place in sorted(map(str, self._redis.smembers(_STORES)))}

    def of_run(self, job_id: str, places: list[str]) -> list[Limits]:
        """Return the limits of a job and of stores, in one reading."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(key(job_id), list(LIMITS.values()))
            for place in places:
                pipe.hgetall(store_key(place))
            job, *stores = pipe.execute()
        return [_limits(dict(zip(LIMITS, job, strict=True))), *map(_limits, stores)]

    def limit_job(self, job_id: str, changed: Mapping[str, int | None]) -> str:
        """
        Set limits of a job, None: take them away; return its state, "" if there is no such job.

        Nothing changes in one that has ended. Who works for the job keeps to it within a second.
        """
        pairs = [part for name, value in changed.items() for part in (LIMITS[name], _text(value))]
        return str(self._run(scripts.LIMIT_JOB, [key(job_id)], pairs))

    def limit_store(self, place: str, changed: Mapping[str, int | None]) -> None:
        """Set limits of a store, for all jobs; None: take them away."""
        pairs = [part for name, value in changed.items() for part in (name, _text(value))]
        self._run(scripts.LIMIT_STORE, [store_key(place), _STORES], [place, *pairs])

    def take(self, bucket: Bucket, taker: str, wanted: int, *, now: float | None = None) -> Grant:
        """
        Ask for *wanted* bytes or requests for *taker*, a process of the fleet; some may be granted, all, or none.

        *now* is for tests, in seconds; they then live by a clock of their own.
        """
        arguments = [*bucket.fields(), bucket.job_id, taker, wanted, "" if now is None else now]
        amount, wait_s, limited = self._run(scripts.TAKE, bucket.keys(), arguments)
        return Grant(int(amount), float(wait_s), bool(limited))

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


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
