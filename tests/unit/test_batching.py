"""Into how many batches a job is cut."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.jobs.batching import BATCHES_OF_A_PROCESS, between_directories, group_batches
from snapferry.workers.messages import GROUP_BATCHES, JobSpec, StoreRef

HERE = StoreRef(url="file:///a"), StoreRef(url="file:///b")
ELSEWHERE = StoreRef(url="s3://bucket/c")


def job(source: StoreRef, destination: StoreRef, *more: StoreRef) -> JobSpec:
    return JobSpec(source=source, destination=destination, more_sources=more, everything=True)


@pytest.mark.parametrize(
    ("processes", "batches"),
    [(1, BATCHES_OF_A_PROCESS), (2, 2 * BATCHES_OF_A_PROCESS), (1000, GROUP_BATCHES), (0, GROUP_BATCHES)],
)
def test_a_job_between_directories_has_as_few_batches_as_the_processes_can_share(
    processes: int, batches: int
) -> None:
    assert group_batches(job(*HERE), lambda: processes) == batches


@pytest.mark.parametrize(
    "spec",
    [
        job(HERE[0], ELSEWHERE),
        job(ELSEWHERE, HERE[0]),
        job(*HERE, ELSEWHERE),
        job(HERE[0], StoreRef(url="unknown://b")),
        job(HERE[0], StoreRef(url="file:///b", objects_url="s3://bucket/c")),
    ],
)
def test_any_other_job_has_many_and_asks_for_no_workers(spec: JobSpec) -> None:
    def processes() -> int:
        raise AssertionError

    assert not between_directories(spec)
    assert group_batches(spec, processes) == GROUP_BATCHES
