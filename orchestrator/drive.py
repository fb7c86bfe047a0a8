"""
The steps of a job: plan it, hand it out, conclude it.

Each step looks at the ledger and at the stores, never at what a message or a
chord claims, so a step may run twice, late, or at the same time as itself.
"""

from __future__ import annotations

import logging
import time

from celery import Celery

from stores.errors import InvalidStoreURL, StoreError
from stores.snapshot_store import SnapshotStore
from stores.urls import open_store, parse_url
from workers.commit import publish_snapshot
from workers.ledger import PLAN, Ledger, State
from workers.messages import JobRequest

from .dispatch import hand_out
from .plan import pack

log = logging.getLogger(__name__)

# A job is handed out at most this often: the plan, and then what is missing of it.
MAX_TURNS = 5


def plan_job(app: Celery, ledger: Ledger, job_id: str) -> str:
    """
    Read the source's manifest, pack its objects and queue the batches; return what was done, in words.

    Raises `StoreError` where the job cannot go on, transient or not.
    """
    request = ledger.request(job_id)
    if ledger.cancelled(job_id):
        ledger.advance(job_id, State.CANCELLED)
        return "cancelled"
    if not ledger.advance(job_id, State.PLANNING, started_at=time.time()):
        return "the job has ended already"
    source, destination = _open_both(request)
    try:
        source.check()
        destination.check(for_writing=True)
    except StoreError as error:
        # A store that cannot be reached before anything was begun is more likely misspelt than away:
        # say so at once instead of trying again.
        fail_job(ledger, job_id, f"{type(error).__name__}: {error}")
        return f"failed: {error}"
    with source.read_manifest(request.snapshot_id) as manifest:
        objects = manifest.objects()
    if request.dry_run:
        return _dry_run(ledger, request, destination, objects)
    batches = list(pack(objects, max_objects=request.batch_objects, max_bytes=request.batch_bytes))
    if not ledger.plan(job_id, objects=len(objects), size_bytes=sum(objects.values()), batches=len(batches)):
        return "the job has ended already"
    # A plan that is delivered again, because its first run was cut off, hands out only what is missing.
    missing = set(ledger.unaccounted(job_id, len(batches)))
    wanted = [batch for batch in batches if batch.number in missing]
    destination.prepare()
    hand_out(app, request, wanted, series=PLAN, of=len(batches), turn=0)
    return f"{len(objects)} objects in {len(batches)} batches"


def conclude_job(app: Celery, ledger: Ledger, job_id: str, turn: int) -> str:  # noqa: PLR0911 - one return an end
    """
    Publish the snapshot if all is well, else hand out what is missing or end the job; say which, in words.

    Raises `StoreError` where the destination or the source gives no answer.
    """
    request = ledger.request(job_id)
    status = ledger.status(job_id)
    if status.state.final:
        return f"the job is {status.state} already"
    if request.dry_run or status.state in (State.QUEUED, State.PLANNING):
        return "there is no plan to conclude"
    if ledger.cancelled(job_id):
        ledger.advance(job_id, State.CANCELLED)
        return "cancelled"
    missing_batches = ledger.unaccounted(job_id, status.batches_total)
    if missing_batches:
        return _hand_out_again(app, ledger, request, missing_batches, turn, before=status.missing_before)
    if status.failed:
        ledger.advance(job_id, State.FAILED, error=_failed_words(status.failed, status.objects_total))
        return f"{status.failed} objects failed; the manifest was not written"
    ledger.advance(job_id, State.COMMITTING)
    source, destination = _open_both(request)
    missing = publish_snapshot(source, destination, request.snapshot_id)
    if missing:
        return _heal(app, ledger, request, missing, turn)
    ledger.advance(job_id, State.DONE)
    return f"published; {status.copied} copied, {status.present} present"


def fail_job(ledger: Ledger, job_id: str, reason: str) -> None:
    """End the job as failed for *reason*, one sentence for a person. A job that has ended stays as it is."""
    ledger.advance(job_id, State.FAILED, error=reason)


def _hand_out_again(
    app: Celery, ledger: Ledger, request: JobRequest, numbers: list[int], turn: int, *, before: int
) -> str:
    """
    Queue exactly the batches of the plan that nobody accounted for; end the job after the last turn.

    A turn that left fewer batches missing than the one *before* (0: there was none) is not counted.
    """
    if len(numbers) < before:
        turn -= 1
    if turn + 1 >= MAX_TURNS:
        reason = f"{len(numbers)} batches never ended in {MAX_TURNS} turns; see the workers' logs, then run it again"
        fail_job(ledger, request.job_id, reason)
        return reason
    if not ledger.advance(request.job_id, State.COPYING, missing_before=len(numbers)):
        return "the job has ended already"
    log.warning("job %s: handing out %d batches again", request.job_id, len(numbers))
    wanted = set(numbers)
    plan = list(pack(_objects(request), max_objects=request.batch_objects, max_bytes=request.batch_bytes))
    again = [batch for batch in plan if batch.number in wanted]
    hand_out(app, request, again, series=PLAN, of=len(plan), turn=turn + 1)
    return f"{len(again)} batches are handed out again"


def _heal(app: Celery, ledger: Ledger, request: JobRequest, missing: tuple[str, ...], turn: int) -> str:
    """Queue objects that were accounted for and yet are absent; end the job after the last turn."""
    if turn + 1 >= MAX_TURNS:
        reason = (
            f"{len(missing)} objects were copied and are absent again, the first is {missing[0]}: something deletes"
            " them at the destination. The manifest was not written."
        )
        fail_job(ledger, request.job_id, reason)
        return reason
    if not ledger.advance(request.job_id, State.COPYING):
        return "the job has ended already"
    log.warning(
        "job %s: %d objects are absent after copying; copying them again", request.job_id, len(missing)
    )
    sizes = _objects(request)
    objects = {address: sizes[address] for address in missing}
    again = list(pack(objects, max_objects=request.batch_objects, max_bytes=request.batch_bytes))
    hand_out(app, request, again, series=f"heal-{turn + 1}", of=len(again), turn=turn + 1)
    return f"{len(missing)} objects were absent and are copied again"


def _objects(request: JobRequest) -> dict[str, int]:
    source = open_store(request.source.url, request.source.objects_url)
    with source.read_manifest(request.snapshot_id) as manifest:
        return manifest.objects()


def _open_both(request: JobRequest) -> tuple[SnapshotStore, SnapshotStore]:
    if parse_url(request.source.url).same_place(parse_url(request.destination.url)):
        raise InvalidStoreURL(request.source.url, "", "source and destination are the same store")
    return (
        open_store(request.source.url, request.source.objects_url),
        open_store(request.destination.url, request.destination.objects_url),
    )


def _failed_words(failed: int, total: int) -> str:
    return f"{failed} of {total} objects could not be copied; the manifest was not written. Run it again to resume."


def _dry_run(ledger: Ledger, request: JobRequest, destination: SnapshotStore, objects: dict[str, int]) -> str:
    """Ask what is there and record it; write nothing but the ledger."""
    needed = destination.objects_needed(objects)
    ledger.advance(
        request.job_id,
        State.DONE,
        objects_total=len(objects),
        bytes_total=sum(objects.values()),
        present=len(objects) - len(needed),
        to_copy=len(needed),
        bytes_to_copy=sum(objects[address] for address in needed),
    )
    return f"dry run: {len(needed)} of {len(objects)} objects would be copied"
