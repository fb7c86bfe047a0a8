"""Into how many batches a job is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.jobs.batching import BATCHES_OF_A_PROCESS, between_directories, group_batches
from snapferry.orchestrator.planning.batches import FEW_OBJECTS, cut
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


MOST_BYTES = 2**40


@given(
    objects=st.integers(0, 100_000), batches=st.integers(1, GROUP_BATCHES - 1), most=st.integers(1000, 10_000)
)
def test_a_group_is_cut_into_no_more_batches_than_asked_for_or_needed(
    objects: int, batches: int, most: int
) -> None:
    ranges = list(cut([1] * objects, most, MOST_BYTES, batches))

    assert [at for each in ranges for at in range(*each)] == list(range(objects))
    assert all(end - first <= most for first, end in ranges)
    smallest = min(most, FEW_OBJECTS)
    assert len(ranges) <= max(batches, -(-objects // most)) or all(
        end - first == smallest for first, end in ranges[:-1]
    )


@pytest.mark.parametrize("objects", [64_000, 64_001, 100_000, 130_000])
def test_the_default_is_cut_as_version_1_0_0_cuts_it(objects: int) -> None:
    each = objects // GROUP_BATCHES
    assert list(cut([1] * objects, 10_000, MOST_BYTES)) == [
        (first, min(first + each, objects)) for first in range(0, objects, each)
    ]
