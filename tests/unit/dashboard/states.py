"""Jobs in every state that a ledger can be in, made by the steps of workers and orchestrators."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from snapferry.stores.hashing import digest
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import (
    Action,
    BatchMessage,
    JobSpec,
    StoreRef,
    VerifyOptions,
    encode_addresses,
)
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.reachability.worker_roster import WorkerRoster

SOURCE, DESTINATION = StoreRef(url="file:///srv/photos"), StoreRef(url="s3://backup/photos")

# Objects of a job, in batches of so many, and bytes of each object.
OBJECTS: Final = 40
EACH: Final = 10
SIZE: Final = 1_000_000

BATCHES: Final = OBJECTS // EACH

Build = Callable[[Ledger], None]


def spec(job_id: str, **fields: Any) -> JobSpec:
    given: dict[str, Any] = {"source": SOURCE, "destination": DESTINATION} | fields
    snapshots = encode_addresses(digest(b"snapshot %d" % number) for number in range(2))
    return JobSpec(job_id=job_id, snapshots=snapshots, batch_objects=EACH, **given)


def batch(job_id: str, number: int, series: str = "plan") -> BatchMessage:
    addresses = [digest(b"object %d" % (number * EACH + at)) for at in range(EACH)]
    return BatchMessage(
        job_id=job_id, series=series, number=number, source=SOURCE, destination=DESTINATION,
        addresses=encode_addresses(addresses), sizes=(SIZE,) * EACH, positions=(number * EACH,),
    )  # fmt: skip


def planned(ledger: Ledger, job_id: str = "job", *, handed: int = BATCHES, **fields: Any) -> None:
    """Create a job, plan it, and queue its first batches."""
    ledger.create(spec(job_id, **fields))
    ledger.advance(job_id, State.PLANNING)
    # It was begun a while ago.
    ledger.client.hincrbyfloat(f"snapferry:job:{job_id}", "started_at", -20)
    ledger.client.hincrbyfloat(f"snapferry:job:{job_id}", "submitted_at", -25)
    ledger.advance(
        job_id, State.COPYING, objects_total=OBJECTS, bytes_total=OBJECTS * SIZE, batches_total=BATCHES,
        batches_handed=handed, snapshots_total=2,
    )  # fmt: skip


def end_batch(
    ledger: Ledger, job_id: str, number: int, *, present: int = 0, failed: int = 0, series: str = "plan"
) -> None:
    """End a batch: its first objects were *present*, its last ones *failed*, and the others were copied."""
    message = batch(job_id, number, series)
    addresses = list(message.objects())
    needed = addresses[present:]
    ledger.begin(message, "1#1@worker@one")
    ledger.note_missing(message, needed)
    copied = len(needed) - failed
    failures = [
        Failure(address, "ObjectMissing", "file:///srv/photos", "it is not there", transient=False)
        for address in addresses[EACH - failed :]
    ]
    outcome = BatchOutcome(
        copied=copied, present=present, bytes_copied=copied * SIZE, needed_bytes=len(needed) * SIZE,
        failures=failures,
    )  # fmt: skip
    ledger.account(message, outcome, worker="worker@one")
    ledger.release(message, "1#1@worker@one")


def run_batch(ledger: Ledger, job_id: str, number: int, *, objects: int, moved: int) -> None:
    """Begin a batch, and let *objects* of it be settled, *moved* of them by a copy."""
    message, holder = batch(job_id, number), "1#1@worker@one"
    ledger.begin(message, holder)
    ledger.progress(
        message, holder, objects=objects, size_bytes=objects * SIZE, in_flight=1, moved=moved * SIZE
    )


def end(ledger: Ledger, job_id: str = "job", state: State = State.DONE, **fields: Any) -> None:
    ledger.advance(job_id, State.COMMITTING)
    ledger.advance(job_id, state, **fields)
    ledger.remove_working_keys(job_id)


def worker(ledger: Ledger) -> None:
    WorkerRoster(ledger.client).announce("worker@one", ["snapferry.copy"])


def no_workers(ledger: Ledger) -> None:
    planned(ledger)
    end_batch(ledger, "job", 0)


def running(ledger: Ledger) -> None:
    planned(ledger, handed=3)
    worker(ledger)
    end_batch(ledger, "job", 0, present=4)
    run_batch(ledger, "job", 1, objects=7, moved=5)


def running_present(ledger: Ledger) -> None:
    planned(ledger)
    worker(ledger)
    end_batch(ledger, "job", 0, present=EACH)
    run_batch(ledger, "job", 1, objects=7, moved=0)


def all_failed(ledger: Ledger) -> None:
    planned(ledger)
    worker(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number, failed=EACH)
    end(ledger, state=State.FAILED, error="40 of 40 objects could not be copied", unpublished=2)


def one_failed(ledger: Ledger) -> None:
    planned(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number, failed=int(number == 2))
    end(ledger, state=State.FAILED, error="1 of 40 objects could not be copied", unpublished=1, published=1)


def unpublished(ledger: Ledger) -> None:
    planned(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number)
    end(ledger, state=State.FAILED, error="the destination is full", unpublished=2)


def all_present(ledger: Ledger) -> None:
    planned(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number, present=EACH)
    end(ledger, published=2)


def copied(ledger: Ledger) -> None:
    planned(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number, present=number)
    end(ledger, published=2)


def paused(ledger: Ledger) -> None:
    running(ledger)
    ledger.pause("job", paused=True)


def paused_at_rest(ledger: Ledger) -> None:
    """The batch that ran was interrupted: its objects are settled, and nobody runs it."""
    paused(ledger)
    ledger.hold(batch("job", 1), "1#1@worker@one")


def growing(ledger: Ledger) -> None:
    """Batches run while the manifests of further snapshots are read."""
    running(ledger)
    ledger.set_fields("job", snapshots_planned=1)


def cancelled_growing(ledger: Ledger) -> None:
    growing(ledger)
    ledger.cancel("job")
    end(ledger, state=State.CANCELLED)


def waiting(ledger: Ledger) -> None:
    no_workers(ledger)
    worker(ledger)
    problem = {"store": "s3://backup/photos", "reason": "no answer within 10 s", "since": time.time() - 3700}
    ledger.set_fields("job", waits=json.dumps(problem))


def rests(ledger: Ledger, seconds: float) -> None:
    """Let nothing of the job have moved for so long."""
    key = "snapferry:job:job"
    for name in ("started_at", "submitted_at", "moved_at"):
        ledger.client.hincrbyfloat(key, name, -seconds)
    for batch_name, text in ledger.client.hgetall(f"{key}:moves").items():
        at, rest = str(text).split(" ", 1)
        ledger.client.hset(f"{key}:moves", str(batch_name), f"{float(at) - seconds:.3f} {rest}")


def workers_busy(ledger: Ledger) -> None:
    no_workers(ledger)
    worker(ledger)
    rests(ledger, 30)


def hanging(ledger: Ledger) -> None:
    running(ledger)
    rests(ledger, 700)


def cancelling(ledger: Ledger) -> None:
    running(ledger)
    ledger.cancel("job")


def cancelled(ledger: Ledger) -> None:
    cancelling(ledger)
    end(ledger, state=State.CANCELLED)


def cancelled_at_once(ledger: Ledger) -> None:
    ledger.create(spec("job"))
    ledger.cancel("job")


def queued(ledger: Ledger) -> None:
    ledger.create(spec("job", priority="high", queue="tape"))


def retried(ledger: Ledger) -> None:
    all_failed(ledger)
    planned(ledger, "retry-running", retries="job")
    end_batch(ledger, "retry-running", 0)


def retried_in_vain(ledger: Ledger) -> None:
    all_failed(ledger)
    planned(ledger, "retry-failed", retries="job")
    end_batch(ledger, "retry-failed", 0, failed=EACH)
    end(ledger, "retry-failed", State.FAILED, error="still not there", unpublished=2)


def superseded(ledger: Ledger) -> None:
    retried_in_vain(ledger)
    planned(ledger, "resume-done", resumes="retry-failed")
    for number in range(BATCHES):
        end_batch(ledger, "resume-done", number)
    end(ledger, "resume-done", published=2)


def dismissed(ledger: Ledger) -> None:
    retried_in_vain(ledger)
    ledger.dismiss("retry-failed", dismissed=True, by="ann@desk", why="the source is gone")


def later_run_done(ledger: Ledger) -> None:
    planned(ledger)
    ledger.client.hset("snapferry:job:job", "schedule", "mirror:nightly")
    end(ledger, "job", State.FAILED, error="gone", unpublished=2)
    ledger.client.zadd("snapferry:success:mirror", {"nightly": time.time() + 1})


def healed(ledger: Ledger) -> None:
    planned(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number)
    ledger.advance("job", State.COMMITTING)
    ledger.advance("job", State.COPYING)
    ledger.note_healing("job", 0, turn=1, batches=1)
    end_batch(ledger, "job", 0, failed=2, series="heal-0-1")
    end(ledger, state=State.FAILED, error="2 of 40 objects vanished", unpublished=1, published=1)


def empty_snapshot(ledger: Ledger) -> None:
    ledger.create(spec("job"))
    ledger.advance("job", State.PLANNING)
    end(ledger, published=2, snapshots_total=2)


def dry_run(ledger: Ledger) -> None:
    ledger.create(spec("job", dry_run=True))
    ledger.advance("job", State.PLANNING)
    end(ledger, objects_total=OBJECTS, bytes_total=OBJECTS * SIZE, snapshots_total=2)


def planning(ledger: Ledger) -> None:
    ledger.create(spec("job"))
    ledger.advance("job", State.PLANNING)


def committing(ledger: Ledger) -> None:
    planned(ledger)
    for number in range(BATCHES):
        end_batch(ledger, "job", number)
    ledger.advance("job", State.COMMITTING, published=1)


def bounded_verify(ledger: Ledger) -> None:
    planned(
        ledger,
        action=Action.VERIFY,
        destination=SOURCE,
        verify=VerifyOptions(max_bytes=20 * SIZE, fast=False),
    )
    end_batch(ledger, "job", 0, present=EACH)
    end_batch(ledger, "job", 1, present=EACH)
    ledger.set_fields("job", bounded="max_bytes", bytes_copied=20 * SIZE)
    end(ledger, published=0)


STATES: Final[dict[str, Build]] = {
    build.__name__: build
    for build in (
        no_workers, workers_busy, hanging,
        running, running_present, all_failed, one_failed, unpublished, all_present, copied, paused,
        paused_at_rest, growing, cancelled_growing, waiting, cancelling, cancelled, cancelled_at_once, queued,
        retried, retried_in_vain, superseded, dismissed,
        later_run_done, healed,
        empty_snapshot, dry_run, planning, committing, bounded_verify,
    )
}  # fmt: skip
