"""A ledger on a real Redis, with one job that is being copied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from snapferry.workers.ledger import (
    Ledger,
    State,
)
from tests.unit.ledger.support import request


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    """A ledger with one job that is being copied: three batches of 2, 3 and 1 objects, 5, 6 and 100 bytes."""
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.advance("job", State.COPYING, objects_total=6, bytes_total=111, batches_total=3, batches_handed=3)
    return ledger
