"""Kill the owner of a copy in parts before every step that changes something, and let another one go on."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.hashing import digest
from snapferry.workers.copying.delivery import Skipped
from snapferry.workers.copying.parts import sizes
from snapferry.workers.lua import ScriptRunner
from tests.opening import open_store

from .parts_world import ADDRESS, LARGE, World, kind_fixture, world_fixture  # noqa: F401 - pytest finds them here
from .test_kill_points import Fuse, _fused

pytestmark = [pytest.mark.usefixtures("s3_environment"), pytest.mark.slow]

MOST = 400
CALLS = ("open", "pwrite", "write", "ftruncate", "fsync", "rename", "unlink")


def die_at(point: int) -> None:
    """Let this process be killed before the *point*-th change of a file, request to a bucket, or script of Redis."""
    fuse = Fuse(point)
    for name in CALLS:
        setattr(os, name, _fused(getattr(os, name), fuse))
    owners: tuple[tuple[Any, str], ...] = ((Bucket, "_call_once"), (ScriptRunner, "run"))
    for owner, name in owners:
        setattr(owner, name, _fused(getattr(owner, name), fuse))


def run_and_die(world: World, point: int) -> bool:
    """Run the batch in a process that is killed at a point; return whether it was."""
    child = os.fork()
    if child == 0:
        try:
            world.ledger.client.connection_pool.reset()
            die_at(point)
            world.run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed instead of being killed"
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_whenever_the_owner_dies_another_one_ends_the_copy_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One after the other, so that the points are the same in each run.
    monkeypatch.setattr(sizes, "PARTS_IN_FLIGHT", 1)
    monkeypatch.setattr(sizes, "LEAST_PART_BYTES", 32 * 1024)
    for point in range(MOST):
        client = world.ledger.client
        record = {str(key): client.dump(key) for key in client.scan_iter("snapferry:*")}
        died = run_and_die(world, point)
        store = open_store(world.to)
        if store.has_object(ADDRESS):
            assert digest(store.get_object(ADDRESS)) == ADDRESS, point
        said = world.run()
        assert said.startswith(("1 copied", "0 copied, 1 present")) or said == Skipped.ACCOUNTED, (
            point,
            said,
        )
        assert store.get_object(ADDRESS) == LARGE
        status = world.ledger.status("job")
        assert (status.copied, status.present, status.failed) == (1, 0, 0), point
        left = world.left_over()
        if said == Skipped.ACCOUNTED:
            # The keys in Redis expire. A worker removes the rest when the job ends.
            left = [one for one in left if not one.startswith("snapferry:")]
        assert left == [], point
        if not died:
            assert point > 30, "most points were not reached"
            return
        store.objects.delete(object_key(ADDRESS))
        for key in client.scan_iter("snapferry:*"):
            client.delete(key)
        for name, dumped in record.items():
            client.restore(name, 0, dumped or b"")
    pytest.fail("the copy did not end")
