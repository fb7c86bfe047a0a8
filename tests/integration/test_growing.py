"""A copy of many snapshots begins before its last manifest is read, on a real fleet."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.orchestrator.reporting.measures import share
from snapferry.stores.address import manifest_key
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.opening import open_store
from tests.sample import assert_published_means_complete, tree

from .processes import PATIENCE_S, Fleet, until
from .raw_store import write_snapshots

SNAPSHOTS = 24
OBJECTS = 10

# Reading all manifests takes several seconds.
SLOW_MANIFESTS = """
import time
from snapferry.orchestrator.planning import prepare
read = prepare._objects
def patched(*args):
    time.sleep(0.25)
    return read(*args)
prepare._objects = patched
"""


def _files(number: int) -> dict[str, bytes]:
    return {f"./f{n}": b"%d %d" % (number, n) for n in range(OBJECTS)}


class Watch:
    """Looks at one job: what is settled never goes back, nor do totals, and nothing passes its total."""

    def __init__(self) -> None:
        self.planning: list[JobStatus] = []
        self._last = (0, 0, 0.0, 0, 0)

    def see(self, status: JobStatus) -> None:
        now = (
            status.objects_settled,
            status.bytes_settled,
            share(status),
            status.objects_total,
            status.batches_total,
        )
        assert all(one >= before for one, before in zip(now, self._last, strict=True)), (now, self._last)
        assert status.objects_settled <= status.objects_total
        assert status.bytes_settled <= status.bytes_total
        if status.partly_planned:
            assert status.state in (State.COPYING, State.CANCELLED), status
            assert status.snapshots_published == 0
            self.planning.append(status)
        self._last = now


def _copies(status: JobStatus) -> bool:
    return status.partly_planned and status.objects_settled > 0


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True], ids=["undisturbed", "its orchestrator dies"])
def test_objects_are_copied_while_manifests_are_read(redis_url: str, tmp_path: Path, *, dies: bool) -> None:
    ids = write_snapshots(tmp_path / "a", map(_files, range(SNAPSHOTS)))
    fleet, jobs, watch = Fleet(redis_url, tmp_path, {}), Jobs(Settings(broker_url=redis_url)), Watch()

    def copies() -> bool:
        watch.see(status := jobs.status(job))
        return _copies(status)

    with fleet.worker(), fleet.orchestrator(before=SLOW_MANIFESTS) as orchestrator:
        job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), ids))
        until(copies, "objects are copied while manifests are read")
        if dies:
            orchestrator.kill_all()
            orchestrator.process.wait(PATIENCE_S)
            assert jobs.status(job).partly_planned
            with fleet.orchestrator():
                ended = jobs.wait(job, watch.see, timeout_s=PATIENCE_S)
        else:
            ended = jobs.wait(job, watch.see, timeout_s=PATIENCE_S)

    assert ended.state is State.DONE, ended
    assert watch.planning
    assert not ended.partly_planned
    assert ended.copied == ended.objects_settled == ended.objects_total == SNAPSHOTS * OBJECTS
    assert tree(tmp_path / "b") == tree(tmp_path / "a")


@pytest.mark.slow
def test_a_cancel_and_a_lost_manifest_leave_a_true_state(redis_url: str, tmp_path: Path) -> None:
    ids = write_snapshots(tmp_path / "a", map(_files, range(SNAPSHOTS)))
    fleet, jobs, watch = Fleet(redis_url, tmp_path, {}), Jobs(Settings(broker_url=redis_url)), Watch()
    (tmp_path / "a" / manifest_key(ids[-1])).unlink()
    with fleet.worker(), fleet.orchestrator(before=SLOW_MANIFESTS):
        job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), ids))
        until(lambda: _copies(jobs.status(job)), "objects are copied while manifests are read")
        jobs.cancel(job)
        cancelled = jobs.wait(job, watch.see, timeout_s=PATIENCE_S)
        assert_published_means_complete(open_store(str(tmp_path / "b")))
        assert open_store(str(tmp_path / "b")).list_manifest_ids() == []
        again = jobs.resume(job)
        assert again is not None
        ended = jobs.wait(again, Watch().see, timeout_s=PATIENCE_S)

    assert cancelled.state is State.CANCELLED, cancelled
    assert cancelled.partly_planned
    assert cancelled.copied > 0
    assert ended.state is State.FAILED, ended
    assert ended.present >= cancelled.copied
    assert open_store(str(tmp_path / "b")).list_manifest_ids() == sorted(ids[:-1])
    assert_published_means_complete(open_store(str(tmp_path / "b")))
