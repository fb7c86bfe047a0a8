"""A worker loses a store in the middle of a batch: its clock, its credentials, its mount or its route is gone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.access import TRUSTED
from snapferry.stores.address import Address
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.transfer.batch import copy_batch
from snapferry.workers.copying.transfer.verify import verify_batch
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.reachability.outage import StoreWatch, Unreachable
from snapferry.workers.reachability.sides import StoreSide
from snapferry.workers.reachability.store_problems import Kind, StoreProblems
from snapferry.workers.settings.environment import Settings
from tests.chaos.clock import SKEWED_CLOCK
from tests.opening import open_store
from tests.sample import fill, make_store, random_files, tree

from .processes import PATIENCE_S, Fleet, until
from .stopping_server import StoppingServer, stopping_server

COUNT = 12
FILES = random_files(COUNT, size=100)
OBJECTS = {Address(digest(data)): len(data) for data in FILES.values()}


@pytest.fixture
def server(tmp_path: Path, s3_environment: dict[str, str]) -> Iterator[StoppingServer]:
    with stopping_server(tmp_path / "s3") as found:
        yield found


@pytest.fixture
def problems(redis_url: str) -> Iterator[StoreProblems]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield StoreProblems(client)


@dataclass
class LosesAStore:
    """The progress of a batch, which calls *lose* when so many objects are settled."""

    lose: Callable[[], object]
    after: int = 5
    settled: int = 0
    lost: list[object] = field(default_factory=list)

    def begin(self, needed: list[Address]) -> None:
        return None

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        self.settled += objects
        if self.settled >= self.after and not self.lost:
            self.lost.append(self.lose())


Lose = Callable[[StoppingServer, pytest.MonkeyPatch], None]


def skew(seconds: int) -> Lose:
    return lambda _, patch: _skew(patch, seconds)


def _skew(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    now, current = time.time, botocore.auth.get_current_datetime
    monkeypatch.setattr(time, "time", lambda: now() + seconds)
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *a, **k: current(*a, **k) + timedelta(seconds=seconds)
    )


def revoke(server: StoppingServer, _: pytest.MonkeyPatch) -> None:
    """Let the server know other keys only."""
    server.kill()
    server.keys = [("anotheraccesskey", "anothersecretkey")]
    server.start()


def cut_off(server: StoppingServer, _: pytest.MonkeyPatch) -> None:
    server.kill()


def remove_bucket(server: StoppingServer, _: pytest.MonkeyPatch) -> None:
    # A running server remembers directories.
    server.kill()
    shutil.rmtree(server.bucket)
    server.start()


def unmount(root: Path) -> None:
    """Leave an empty directory, as below a mount point."""
    root.rename(root.with_name("elsewhere"))
    root.mkdir()


LOSSES: dict[str, tuple[Lose, Kind]] = {
    "clock fast": (skew(7200), Kind.REFUSED),
    "clock slow": (skew(-7200), Kind.REFUSED),
    "credentials revoked": (revoke, Kind.REFUSED),
    "route gone": (cut_off, Kind.AWAY),
    "bucket gone": (remove_bucket, Kind.REFUSED),
}


def run(
    problems: StoreProblems,
    source: str,
    destination: str,
    lose: Callable[[], object],
    *,
    verify: bool = False,
) -> Unreachable:
    """Run a batch as a worker does, one object after the other; return what ended it."""
    sides = (
        StoreSide(StoreRef(url=source), writing=False),
        StoreSide(StoreRef(url=destination), writing=not verify),
    )
    stores = open_store(source, create=False), open_store(destination, create=False)
    if not verify and "://" not in destination:
        # A directory takes objects together, this store takes one by one.
        stores = stores[0], SnapshotStore(MemoryBackend())
    watch = StoreWatch(problems, "worker@here", sides, len(OBJECTS), TRUSTED)
    watch.opened(*stores)
    act: Any = verify_batch if verify else copy_batch
    with pytest.raises(Unreachable) as raised:
        outcome = act(*stores, OBJECTS, LosesAStore(lose), concurrency=1, outages=watch)
        watch.confirm(outcome.failures)
    return raised.value


QUICK = {("from", "clock fast"), ("to", "credentials revoked"), ("verify", "route gone")}


@pytest.mark.parametrize(
    ("way", "loss"),
    [
        pytest.param(way, loss, marks=[] if (way, loss) in QUICK else pytest.mark.slow)
        for way in ("from", "to", "verify")
        for loss in LOSSES
    ],
)
def test_a_bucket_that_is_lost_after_some_objects_fails_none(
    problems: StoreProblems,
    server: StoppingServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    loss: str,
) -> None:
    folder = tmp_path / "folder"
    lose, kind = LOSSES[loss]
    if way == "to":
        make_store(folder, FILES)
        urls = str(folder), server.url
    else:
        fill(open_store(server.url), FILES)
        folder.mkdir()
        urls = server.url, server.url if way == "verify" else str(folder)

    with monkeypatch.context() as patch:
        ended = run(problems, *urls, lambda: lose(server, patch), verify=way == "verify")

    assert (ended.side.ref.url, ended.kind, ended.reached) == (server.url, kind, True)


@pytest.mark.parametrize("lose", [unmount, shutil.rmtree], ids=["unmounted", "removed"])
@pytest.mark.parametrize("way", ["from", "verify"])
def test_a_directory_that_is_lost_after_some_objects_fails_none(
    problems: StoreProblems, tmp_path: Path, lose: Callable[[Path], object], way: str
) -> None:
    root = tmp_path / "a"
    make_store(root, FILES)
    (tmp_path / "b").mkdir()

    def gone() -> None:
        # An open directory outlives its name, as it outlives a lazy unmount: what is read by it is gone as well.
        shutil.rmtree(root / ".objects")
        lose(root)

    to = str(root if way == "verify" else tmp_path / "b")
    ended = run(problems, str(root), to, gone, verify=way == "verify")
    assert (ended.side.ref.url, ended.kind, ended.reached) == (str(root), Kind.AWAY, True)


def test_objects_fail_where_the_store_still_serves_this_worker(
    problems: StoreProblems, server: StoppingServer, tmp_path: Path
) -> None:
    fill(open_store(server.url), FILES)
    missing = max(OBJECTS)
    sides = (
        StoreSide(StoreRef(url=server.url), writing=False),
        StoreSide(StoreRef(url=str(tmp_path / "b")), writing=True),
    )
    (tmp_path / "b").mkdir()
    watch = StoreWatch(problems, "worker@here", sides, len(OBJECTS), TRUSTED)
    source, destination = (open_store(side.ref.url) for side in sides)
    watch.opened(source, destination)
    path = server.bucket / ".objects" / missing[:3] / missing[3:6] / missing[6:9] / missing[9:]
    path.unlink()

    outcome = copy_batch(source, destination, OBJECTS, LosesAStore(list), concurrency=1, outages=watch)
    watch.confirm(outcome.failures)

    assert [failure.address for failure in outcome.failures] == [missing]
    assert outcome.copied == len(OBJECTS) - 1


# Loses the store when the worker has copied some objects of its first batch.
LOSE_AFTER_SOME = """
from snapferry.workers.copying.transfer.objects import ObjectCopier
noted, count = ObjectCopier._note_success, [0]
def note(self, address):
    noted(self, address)
    count[0] += 1
    if count[0] == 7:
        {lose}
ObjectCopier._note_success = note
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["clock", "credentials", "all clocks"])
def test_a_worker_that_loses_a_bucket_after_some_objects_leaves_the_rest_to_another(
    redis_url: str, tmp_path: Path, server: StoppingServer, s3_environment: dict[str, str], loss: str
) -> None:
    count = 60
    snapshot = make_store(tmp_path / "a", random_files(count, size=100))
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=20))
    fleet = Fleet(redis_url, tmp_path, {**s3_environment, "SNAPFERRY_BATCH_OBJECTS": "20"})
    other = ("anotheraccesskey", "anothersecretkey")
    clock, revoked = tmp_path / "clock", tmp_path / "revoked"
    lose = (
        f"open({str(revoked)!r}, 'w').close()"
        if loss == "credentials"
        else f"set_clock({str(clock)!r}, 7200)"
    )
    before = SKEWED_CLOCK.format(file=str(clock)) + LOSE_AFTER_SOME.format(lose=lose)
    keys = {}
    if loss == "credentials":
        server.keys.append(other)
        server.kill()
        server.start()
        keys = {"AWS_ACCESS_KEY_ID": other[0], "AWS_SECRET_ACCESS_KEY": other[1]}
    lame = Fleet(redis_url, tmp_path, {**fleet.env, **keys})
    spec = JobSpec.of(*store_pair(str(tmp_path / "a"), server.url), [snapshot], concurrency=1)
    with fleet.orchestrator(), lame.worker("lame", "-c", "1", before=before) as worker:
        job_id = jobs.submit(spec)
        if loss == "credentials":
            until(revoked.exists, "some objects are copied")
            server.kill()
            server.keys.remove(other)
            server.start()
        until(lambda: "store not reached" in worker.logged(), "the worker steps back")
        pending = jobs.status(job_id)
        if loss == "all clocks":
            # The clock is set right: the job goes on, although no other worker was there.
            clock.unlink()
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        else:
            with fleet.worker("good", "-c", "1"):
                status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert (pending.state.final, pending.failed) == (False, 0)
    assert (status.state, status.failed) == (State.DONE, 0), status
    assert status.copied + status.present == count + 1
    assert set(tree(server.bucket)) == set(tree(tmp_path / "a"))
