"""A fleet whose keys another program overwrites: an orchestrator sets them aside, and the next job is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from snapferry.workers.ledger.damage import DAMAGED
from tests.sample import make_store

from .forge import Forge
from .processes import Fleet, until

SOONER = "from snapferry.orchestrator import key_repair\nkey_repair.ROUND_S = 0.3\n"

KEYS = (
    "snapferry:jobs", "snapferry:open", "snapferry:orchestrators", "snapferry:workers", "snapferry:expected",
    "snapferry.unacked", "snapferry.copy", "_kombu.binding.snapferry.copy", "snapferry:traffic:series",
)  # fmt: skip


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(redis_url, tmp_path)
    with ExitStack() as stack:
        stack.enter_context(found.orchestrator(before=SOONER))
        stack.enter_context(found.worker())
        yield found


@pytest.mark.slow
def test_a_fleet_goes_on_when_its_keys_are_overwritten(fleet: Fleet, forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", {"./f": b"f", "./g": b"g"})
    with redis.Redis.from_url(fleet.url) as client:
        for key in KEYS:
            client.delete(key)
            client.set(key, "junk")
        until(lambda: all(client.exists(f"{DAMAGED}{key}") for key in KEYS), "all keys are set aside")
    ended = forge.run(
        ["sync", str(tmp_path / "a"), str(tmp_path / "b"), "--id", str(snapshot)],
        {"SNAPFERRY_BROKER_URL": fleet.url},
    )
    assert ended.code == 0, ended
    listed = forge.run(["jobs"], {"SNAPFERRY_BROKER_URL": fleet.url})
    assert listed.code == 0
    assert "done" in listed.out
