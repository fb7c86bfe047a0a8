"""An object that is uploaded in parts, and a worker that is killed among them: nothing of it dangles."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES
from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.opening import open_store
from tests.sample import assert_published_means_complete, make_store, random_files
from tests.servers import S3Server

from .processes import PATIENCE_S, Fleet, until
from .test_never_stuck import KILL_ALL, KILL_SELF, once

AFTER_THE_THIRD_PART = """
import snapferry.stores.backends.s3.objects.multipart as u
send = u.S3Upload._send_part
def patched(self, upload, number, part):
    answer = send(self, upload, number, part)
    if number == 3:
        once()
    return answer
u.S3Upload._send_part = patched
"""


@pytest.mark.parametrize(
    "killed",
    [KILL_SELF, pytest.param(KILL_ALL, marks=pytest.mark.slow)],
    ids=["the child", "the whole worker"],
)
def test_an_upload_whose_worker_is_killed_is_removed_and_the_job_completes(
    moto_s3: S3Server, redis_url: str, tmp_path: Path, killed: str
) -> None:
    bucket = moto_s3.make_bucket()
    snapshot = make_store(tmp_path / "a", random_files(1, size=6 * MIN_PART_BYTES + 1))
    fleet = Fleet(redis_url, tmp_path, moto_s3.environment)
    jobs = Jobs(Settings(broker_url=redis_url))
    before = once(tmp_path / "once", killed) + AFTER_THE_THIRD_PART
    with fleet.orchestrator(), fleet.worker("one", before=before) as one:
        job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), moto_s3.url(bucket, "b")), [snapshot]))
        until((tmp_path / "once").exists, "the worker kills itself")
        if killed == KILL_ALL:
            one.process.wait(PATIENCE_S)
            assert len(moto_s3.unfinished_uploads(bucket)) == 1
            with fleet.worker("two"):
                status = jobs.wait(job, timeout_s=PATIENCE_S)
        else:
            status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert status.state is State.DONE, status
    assert moto_s3.unfinished_uploads(bucket) == []
    assert_published_means_complete(open_store(moto_s3.url(bucket, "b")))


def test_an_upload_that_runs_while_it_is_taken_for_dead_fails_for_now_and_leaves_nothing(
    moto_s3: S3Server, tmp_path: Path
) -> None:
    bucket = moto_s3.make_bucket()
    data = bytes(3 * MIN_PART_BYTES)
    address = digest(data)
    source, destination = open_store(str(tmp_path / "a")), open_store(moto_s3.url(bucket, "b"))
    source.put_object(address, data)

    with pytest.raises(StoreUnavailable):
        destination.copy_object(
            source,
            address,
            size_hint=len(data),
            on_bytes=lambda _: destination.abort_unfinished({address: len(data)}),
        )
    assert moto_s3.unfinished_uploads(bucket) == []
    assert not destination.has_object(address)

    assert destination.copy_object(source, address, size_hint=len(data)) == len(data)
    assert destination.get_object(address) == data
