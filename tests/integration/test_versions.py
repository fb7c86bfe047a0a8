"""Processes of two neighbouring versions around one Redis."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import VERSION, JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files, tree

from .processes import PATIENCE_S, Fleet, until

# The next version, which reads the messages of this one, and has a field that this one does not know.
NEXT_VERSION = f"""
from typing import Literal
import snapferry.workers.messages as m
class JobSpec(m.JobSpec):
    version: Literal[{VERSION}, {VERSION + 1}] = {VERSION + 1}
class BatchMessage(m.BatchMessage):
    version: Literal[{VERSION}, {VERSION + 1}] = {VERSION + 1}
    news: str = ""
    def objects(self):
        assert (self.news == "new") == (self.version == {VERSION + 1}), "a job keeps its version"
        return super().objects()
m.JobSpec, m.BatchMessage = JobSpec, BatchMessage
import snapferry.orchestrator.driving.dispatch as d
make = d._copy
def copy(app, spec, batch, *rest):
    class Made(BatchMessage):
        @classmethod
        def model_construct(cls, **found):
            return BatchMessage.model_construct(news="new" if spec.version == {VERSION + 1} else "", **found)
    d.BatchMessage = Made
    return make(app, spec, batch, *rest)
d._copy = copy
"""

# Both in a hurry: a message of the other version is requeued after half a second.
HURRY = "import snapferry.workers.copying.requeue as r\nr.STEP_ASIDE_S = 0.5\n"
THIS, NEXT = HURRY, NEXT_VERSION + HURRY


class NextJobSpec(JobSpec):
    """A request as the next version submits it."""

    version: int = VERSION + 1  # type: ignore[assignment]


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=4))


def submit(jobs: Jobs, tmp_path: Path, name: str, kind: type[JobSpec] = JobSpec) -> str:
    """Submit a copy of 101 objects, as the version does that *kind* is of."""
    files = random_files(100, seed=len(name) + ord(name[0]))
    snapshot = make_store(tmp_path / name, files)
    return jobs.submit(
        kind.of(*store_pair(str(tmp_path / name), str(tmp_path / f"{name} copied")), [snapshot])
    )


def assert_copied(status: JobStatus, tmp_path: Path, name: str) -> None:
    assert (status.state, status.error) == (State.DONE, "")
    assert (status.copied, status.failed, status.batches_done) == (101, 0, 26)
    assert tree(tmp_path / name) == tree(tmp_path / f"{name} copied")


def test_a_fleet_of_two_versions_ends_the_jobs_of_both(redis_url: str, jobs: Jobs, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path)
    with ExitStack() as stack:
        roles = [
            stack.enter_context(role)
            for role in (
                fleet.orchestrator("--hostname", "old@%h", before=THIS),
                fleet.orchestrator("--hostname", "new@%h", before=NEXT),
                fleet.worker("old", before=THIS),
                fleet.worker("new", before=NEXT),
            )
        ]
        old = submit(jobs, tmp_path, "old")
        new = submit(jobs, tmp_path, "new", NextJobSpec)
        ended = [jobs.wait(job, timeout_s=PATIENCE_S) for job in (old, new)]

        assert "not a message of this version" in roles[2].logged(), (
            "what the old worker cannot read it hands back"
        )
        assert "not a message of this version" not in roles[3].logged(), "the new one reads both"
        assert all(f'"job":"{old}"' in worker.logged() for worker in roles[2:]), "the old job is everybody's"
    assert_copied(ended[0], tmp_path, "old")
    assert_copied(ended[1], tmp_path, "new")


@pytest.mark.slow
def test_a_rolling_upgrade_ends_the_jobs_that_were_on_their_way(
    redis_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    """One by one, the old process is told to leave and the new one is there: workers first, then the orchestrator."""
    fleet = Fleet(redis_url, tmp_path)
    slow = "import time, snapferry.workers.copying.tasks as t\nrun = t.run_batch\n"
    slow += "def slowly(*a):\n    time.sleep(0.2)\n    return run(*a)\nt.run_batch = slowly\n"
    with ExitStack() as stack:
        orchestrator = stack.enter_context(fleet.orchestrator("--hostname", "old@%h", before=THIS))
        worker = stack.enter_context(fleet.worker("old", "-c", "1", before=THIS + slow))
        job = submit(jobs, tmp_path, "old")
        until(lambda: jobs.status(job).batches_done > 2, "it is on its way")
        for old, new in (
            (worker, fleet.worker("new", "-c", "1", before=NEXT + slow)),
            (orchestrator, fleet.orchestrator("--hostname", "new@%h", before=NEXT)),
        ):
            old.process.send_signal(signal.SIGTERM)
            assert old.process.wait(PATIENCE_S) == 0
            stack.enter_context(new)
        assert not jobs.status(job).state.final, "the old ones have not done it all"
        status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert_copied(status, tmp_path, "old")


def test_a_job_of_a_version_that_no_orchestrator_knows_fails_with_that_reason(
    redis_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    impatient = THIS + "r.UNREADABLE_S = 2\n"
    with Fleet(redis_url, tmp_path).orchestrator(before=impatient) as orchestrator:
        status = jobs.wait(submit(jobs, tmp_path, "new", NextJobSpec), timeout_s=PATIENCE_S)

        assert "requeued for another version: the job is of another version" in orchestrator.logged()
    assert status.state is State.FAILED
    assert (
        status.error == "the job was submitted by another version of snapferry, of which no orchestrator runs"
    )
    assert not (tmp_path / "new copied").exists()
