"""Processes of different versions around one Redis."""

from __future__ import annotations

from pathlib import Path

from orchestrator.jobs import Jobs, store_pair
from tests.sample import make_store, random_files, tree
from workers.ledger import State
from workers.settings import Settings

from .processes import Fleet

# The next version's worker, in a hurry.
NEXT_VERSION = """
from typing import Literal
import workers.messages, workers.tasks
class BatchMessage(workers.messages.BatchMessage):
    version: Literal[4] = 4
workers.tasks.BatchMessage = BatchMessage
workers.tasks.STEP_ASIDE_S = 0.2
"""

NEXT_VERSION_OF_A_JOB = """
from typing import Literal
import workers.ledger.jobs, workers.messages
class JobRequest(workers.messages.JobRequest):
    version: Literal[4] = 4
workers.ledger.jobs.JobRequest = JobRequest
"""


def test_a_worker_of_another_version_leaves_the_work_to_one_that_can_read_it(
    redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(99))
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=1))
    fleet = Fleet(redis_url, tmp_path)
    with fleet.orchestrator(), fleet.worker("next", before=NEXT_VERSION) as other, fleet.worker():
        job_id = jobs.submit(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot])
        status = jobs.wait(job_id, timeout_s=100)

        assert "not a message of this version" in other.logged()
    assert (status.state, status.error) == (State.DONE, "")
    assert (status.copied, status.batches_done) == (100, 100)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_job_of_another_version_is_refused_with_that_reason(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    jobs = Jobs(Settings(broker_url=redis_url))
    job_id = jobs.submit(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot])
    with Fleet(redis_url, tmp_path).orchestrator(before=NEXT_VERSION_OF_A_JOB):
        status = jobs.wait(job_id, timeout_s=30)

    assert status.state is State.FAILED
    assert status.error == "the job was submitted by another version of snapferry; submit it again"
    assert not (tmp_path / "b").exists()
