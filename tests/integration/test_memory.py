"""What a worker's processes keep of what they have done: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files
from tests.servers import S3Server

from .processes import Fleet, Started, children_of

WARM = 1_000
GROWTH_BYTES = 4 * 1024**2


def pss(process: int) -> int:
    """Return a process's share of memory in bytes: what it shares with others is divided among them."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {process} tells nothing")


def memory_of(role: Started) -> dict[int, int]:
    """Return the memory of a role's own process and of each of its pool."""
    return {process: pss(process) for process in (role.process.pid, *children_of(role.process.pid))}


@pytest.mark.slow
@pytest.mark.parametrize(("to", "count"), [("file", 10_000), ("s3", 4_000)])
def test_the_memory_of_a_worker_stays_flat_over_thousands_of_batches(
    rclone_memory_s3: S3Server, redis_url: str, tmp_path: Path, to: str, count: int
) -> None:
    """Each batch is one object; one process of the pool takes them all, and more would hide what each keeps."""
    snapshot = make_store(tmp_path / "a", random_files(count - 1, size=64))
    destination = str(tmp_path / "b")
    if to == "s3":
        destination = rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "b")
    fleet = Fleet(redis_url, tmp_path, rclone_memory_s3.environment)
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=1))
    warm: dict[int, int] = {}
    with fleet.orchestrator(), fleet.worker("one", "-c", "1") as one:

        def look(status: JobStatus) -> None:
            if not warm and status.batches_done >= WARM:
                warm.update(memory_of(one))

        status = jobs.wait(
            jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), destination), [snapshot])),
            look,
            timeout_s=1200,
        )
        end = memory_of(one)

    assert (status.state, status.copied) == (State.DONE, count)
    assert warm.keys() == end.keys(), "the same processes"
    assert len(end) == 2
    grown = {process: end[process] - warm[process] for process in end}
    print({process: f"{warm[process]:,} + {grown[process]:,}" for process in grown})
    assert all(growth < GROWTH_BYTES for growth in grown.values()), grown
