"""All limits of a run: which of its stores are slowed, and which are left as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.ledger import Ledger
from snapferry.workers.limits import LimitStore, Throttle
from snapferry.workers.limits.limit_store import Grant, LimitKind, LimitScope
from snapferry.workers.messages import JobSpec, Limits, StoreRef
from tests.integration.processes import until
from tests.opening import open_store

BUCKET = StoreRef(url="s3://bucket/store")


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield Ledger(client, expires_s=60)


class Slowed:
    """Two stores of a run, a bucket and a directory, and which of them were given a rate limiter."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stores = open_store(BUCKET.url), open_store(str(folder))
        self.found: list[str] = []
        for side, store in zip(("source", "destination"), self.stores, strict=True):
            monkeypatch.setattr(store, "limit_rate", self._noting(side, store))

    def _noting(self, side: str, store: SnapshotStore) -> Callable[..., None]:
        keep = store.limit_rate

        def noting(*paces: object) -> None:
            self.found.append(side)
            keep(*paces)  # type: ignore[arg-type]

        return noting


def throttle(
    ledger: Ledger,
    folder: Path,
    s3_requests: int | None,
    *,
    reads_destination: bool = False,
    rate: int | None = None,
) -> Throttle:
    directory = StoreRef(url=f"file://{folder}")
    request = JobSpec(job_id="j", source=BUCKET, destination=directory, batch_objects=1, batch_bytes=1,
        limits=Limits(rate=rate),
    )  # fmt: skip
    ledger.create(request, s3_requests=s3_requests)
    return Throttle(
        LimitStore(ledger.client), "j", BUCKET, directory, lambda: None, reads_destination=reads_destination
    )


@pytest.mark.parametrize(
    ("s3_requests", "at_once", "slowed"),
    [(3500, False, ["source"]), (None, False, []), (None, True, ["source", "destination"])],
)
def test_only_a_store_that_has_a_limit_is_slowed_unless_both_are_to_be_at_once(
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_requests: int | None,
    at_once: bool,
    slowed: list[str],
) -> None:
    found = Slowed(tmp_path, monkeypatch)
    with throttle(ledger, tmp_path, s3_requests) as on:
        on.attach(*found.stores, at_once=at_once)

        assert found.found == slowed


def test_a_limit_that_comes_up_slows_the_other_store_as_well(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Slowed(tmp_path, monkeypatch)
    with throttle(ledger, tmp_path, 3500) as on:
        on.attach(*found.stores, at_once=False)
        LimitStore(ledger.client).set_store_limits(f"file://{tmp_path}", {"rate": 5})

        until(lambda: found.found == ["source", "destination"], "the look")


@pytest.mark.parametrize(("reads_destination", "taken"), [(False, 0), (True, 300_000)])
def test_bytes_at_the_destination_count_for_a_job_that_reads_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_destination: bool, taken: int
) -> None:
    data = bytes(300_000)
    source, destination = open_store(BUCKET.url), open_store(str(tmp_path))
    destination.put_object(digest(data), data)
    granted: list[int] = []
    take = LimitStore.take

    def noting(self: LimitStore, scope: LimitScope, process: str, amount: int) -> Grant:
        grant = take(self, scope, process, amount)
        if scope.kind is LimitKind.BYTES and scope.store == f"file://{tmp_path}":
            granted.append(grant.amount)
        return grant

    monkeypatch.setattr(LimitStore, "take", noting)
    with throttle(ledger, tmp_path, None, reads_destination=reads_destination, rate=10**7) as on:
        on.attach(source, destination, at_once=False)
        destination.check_object(digest(data), size_hint=len(data))

    assert (sum(granted) >= taken) if taken else granted == []
