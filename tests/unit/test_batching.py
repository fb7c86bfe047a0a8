"""How a job is cut into batches."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.jobs.batching import (
    BATCHES_OF_A_PROCESS,
    LOCAL_BATCH_OBJECTS,
    batching,
    between_directories,
)
from snapferry.workers.messages import GROUP_BATCHES, NEWEST_RULES, Action, JobSpec, StoreRef

HERE = StoreRef(url="file:///a"), StoreRef(url="file:///b")
ELSEWHERE = StoreRef(url="s3://bucket/c")


def job(source: StoreRef, destination: StoreRef, *more: StoreRef) -> JobSpec:
    return JobSpec(source=source, destination=destination, more_sources=more, everything=True)


@pytest.mark.parametrize(
    ("processes", "batches"),
    [(1, BATCHES_OF_A_PROCESS), (2, 2 * BATCHES_OF_A_PROCESS), (1000, GROUP_BATCHES)],
)
def test_a_job_between_directories_has_as_few_batches_as_the_processes_can_share(
    processes: int, batches: int
) -> None:
    cut = {"group_batches": batches, "rules": NEWEST_RULES}

    assert batching(job(*HERE), lambda: processes, {"batch_objects"}) == cut
    larger = cut | {"batch_objects": LOCAL_BATCH_OBJECTS}
    assert batching(job(*HERE), lambda: processes, {"batch_bytes"}) == larger


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
    assert batching(spec, processes, set()) == {"group_batches": GROUP_BATCHES, "rules": 1}


@pytest.mark.parametrize("action", [Action.PUSH, Action.PULL])
def test_files_have_the_newest_rules_also_of_a_bucket(action: Action) -> None:
    spec = job(HERE[0], ELSEWHERE).model_copy(update={"action": action})

    assert batching(spec, lambda: 2, set()) == {
        "group_batches": GROUP_BATCHES,
        "rules": NEWEST_RULES,
    }


@pytest.mark.parametrize("spec", [job(*HERE), job(HERE[0], ELSEWHERE)])
def test_for_workers_of_an_earlier_version_or_none_a_job_is_cut_as_they_do(spec: JobSpec) -> None:
    assert batching(spec, lambda: 0, set()) == {"group_batches": GROUP_BATCHES, "rules": 1}
