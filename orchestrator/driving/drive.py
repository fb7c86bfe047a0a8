"""
Drive a job: look at the ledger and at the stores, and do whatever comes next.

There is one way on, whoever asks for it: the task that plans a job, the
callback of a chord, its errback, or the orchestrator that looks after jobs. What
is to be done follows from the ledger and the stores alone, never from what a
message or a chord claims. So a look may come early, late, twice, or not at all
and be made up for; nothing depends on it but time.
"""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import dataclass, field
from typing import Final

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.orchestrator.planning.estimate import survey
from snapferry.orchestrator.planning.plan import Plan, empty_plan
from snapferry.orchestrator.planning.prepare import PLANNED, Snapshots, forget, freeze, prepare, recall
from snapferry.orchestrator.reporting.receipt import final_fields
from snapferry.stores.access import STRICT, AccessPolicy, Right
from snapferry.stores.errors import InvalidStoreURL, StoreError
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.runtime.liveness import identity, is_dead
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import shortened
from snapferry.stores.urls import open_store, parse_url
from snapferry.workers.copying.budget import over_words
from snapferry.workers.copying.describe import describe_snapshots
from snapferry.workers.copying.transfer import Cancelled, Held
from snapferry.workers.ledger import MAX_DRIVES, PLAN, Ledger, Standing, State, UnknownJob
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.limits import Brakes, LimitBook
from snapferry.workers.messages import JobRequest, Prune, pack, unpack
from snapferry.workers.reachability.outage import emptied
from snapferry.workers.reachability.records import ReachBook, sides_of
from snapferry.workers.telemetry import logs, tracing
from snapferry.workers.telemetry.metrics import counters

from .abandon import settle_rest
from .control import Steered
from .dispatch import hand_out, look_after
from .lost_batches import hand_out_lost
from .prune import prune, surplus
from .publish import Publisher
from .store_outage import ANSWERED, StepWatch, may_wait_for

log = logging.getLogger(__name__)

# A driver renews its lease this often, and looks whether the job was cancelled or paused.
RENEW_S: Final = 3.0

# A cancelled job is looked at again so soon, until nothing of it runs.
CANCEL_LOOK_S: Final = 1.0

# So many characters of why a job failed are kept.
LONGEST_REASON: Final = 2000

_runs = itertools.count()


def drive_job(app: Celery, ledger: Ledger, job_id: str, access: AccessPolicy = STRICT) -> str:
    """
    Do what comes next for a job, at stores that *access* allows; return what was done, in words.

    If another orchestrator is at it, that one is told to look again. Raises
    `StoreError` where the job cannot go on, transient or not, and whatever the
    broker raises. May be called again at any time.
    """
    me = f"{identity()}#{next(_runs)}"
    times = ledger.start_driving(job_id, me)
    if times == 0 and is_dead((dead := ledger.driver(job_id)).partition("#")[0]):
        times = ledger.start_driving(job_id, me, instead_of=dead)
    if times < 0:
        raise UnknownJob(job_id)
    if times == 0:
        return "another orchestrator is at it"
    if times > MAX_DRIVES:
        reason = f"its orchestrator died {MAX_DRIVES} times while it was at it; do orchestrators run out of memory?"
        fail_job(ledger, job_id, reason)
        ledger.stop_driving(job_id, me, look_again=False)
        return f"failed: {reason}"

    steered = Steered(ledger, job_id)

    def renew() -> None:
        try:
            steered.look()
            if steered.stuck:
                log.warning("step let go: it does not stop")
                ledger.stop_driving(job_id, me, look_again=False)
                look_after(app, job_id, "its orchestrator is stuck")
                shutdown.end_stuck_process()
            ledger.keep_driving(job_id, me)
        except (RedisError, OperationalError) as error:
            log.warning("cannot renew the lease on the job: %s", error)

    try:
        with Heartbeat(renew, RENEW_S), interruptible(steered.check):
            words = _step(app, ledger, job_id, steered, access)
            while ledger.stop_driving(job_id, me):
                words = _step(app, ledger, job_id, steered, access)
            return words
    except BaseException:
        ledger.stop_driving(job_id, me, look_again=False)
        raise


def fail_job(ledger: Ledger, job_id: str, reason: str) -> None:
    """
    End the job as failed for *reason*, one sentence for a person. A job that has ended stays as it is.

    Its objects that are not settled fail as well, so that they are listed and can be retried.
    """
    settle_rest(ledger, job_id, f"the job ended before it was copied: {reason}")
    end_job(ledger, job_id, State.FAILED, error=reason)


def end_job(ledger: Ledger, job_id: str, state: State, **fields: str | float) -> None:
    """Bring the job to a final state, and keep of it what is wanted afterwards."""
    if "error" in fields:
        fields["error"] = shortened(str(fields["error"]), LONGEST_REASON)
    if ledger.advance(job_id, state, **fields, **final_fields(ledger, job_id)):
        counters.job_ended(state)
        _log_end(ledger, job_id)
        ledger.remove_working_keys(job_id)
        forget(job_id)
        tracing.job_ended(ledger, job_id)


def _log_end(ledger: Ledger, job_id: str) -> None:
    ended = ledger.status(job_id)
    log.log(
        logging.WARNING if ended.state is State.FAILED else logging.INFO,
        "job %s%s",
        ended.state,
        f": {ended.error}" if ended.error else "",
        extra=logs.fields(
            job=job_id,
            state=ended.state.value,
            published=ended.snapshots_published,
            snapshots=ended.snapshots_total,
            copied=ended.copied,
            present=ended.present,
            failed=ended.failed,
            bytes=ended.bytes_copied,
            seconds=round(ended.ended_at - ended.submitted_at, 3),
        ),
    )


@dataclass
class Drive:
    """What one look at a job needs."""

    app: Celery
    ledger: Ledger
    request: JobRequest
    source: SnapshotStore
    destination: SnapshotStore
    snapshots: Snapshots = field(default_factory=lambda: Snapshots([]))
    plan: Plan = field(default_factory=empty_plan)

    @property
    def job_id(self) -> str:
        return self.request.job_id

    def snapshots_of(self, batch: int) -> str:
        """Return in words which snapshots the group of a batch has."""
        for group in self.plan.groups:
            if batch in group.batches:
                return describe_snapshots(self.snapshots.ids[group.snapshots[0]], len(group.snapshots))
        return ""


def _step(app: Celery, ledger: Ledger, job_id: str, steered: Steered, access: AccessPolicy) -> str:
    steered.go_on()
    standing = ledger.standing(job_id)
    if standing.state.final:
        return f"the job is {standing.state} already"
    if stopped := _stopped(app, ledger, job_id, standing):
        return stopped
    request = ledger.request(job_id)
    # What the plan has prepared is not made again: a directory that is missing then is a mount that is away.
    planned = standing.state not in (State.QUEUED, State.PLANNING)
    source, destination = _open_both(request, access, create=not planned)
    if planned and (gone := emptied(ReachBook(ledger.client), job_id, sides_of(request)[1], access)):
        raise gone
    try:
        with (
            StepWatch(ledger, request, access),
            counters.requests_of(source, destination),
            Brakes(
                LimitBook(ledger.client), job_id, request.source, request.destination, steered.check
            ) as brakes,
        ):
            brakes.hold(source, destination, at_once=True)
            return _go_on(Drive(app, ledger, request, source, destination), standing)
    except Held:
        return _paused(ledger.standing(job_id))
    except Cancelled:
        return _cancel(app, ledger, job_id, ledger.standing(job_id))


def _stopped(app: Celery, ledger: Ledger, job_id: str, standing: Standing) -> str:
    """Do what a job needs that is not to go on; return it in words, "" for a job that is to go on."""
    if standing.cancelling:
        return _cancel(app, ledger, job_id, standing)
    if standing.paused:
        return _paused(standing)
    if spent := ledger.over_budget(job_id):
        why = over_words(ledger.request(job_id).budget, spent)
        return _stop_over_budget(app, ledger, job_id, standing, why)
    return ""


def _paused(standing: Standing) -> str:
    planned = standing.state not in (State.QUEUED, State.PLANNING)
    return "the job is paused" if planned else "paused before its plan"


def _go_on(drive: Drive, standing: Standing) -> str:
    ledger, job_id, request = drive.ledger, drive.job_id, drive.request
    if standing.state in (State.QUEUED, State.PLANNING):
        words = _prepare(drive)
        if ledger.standing(job_id).state is not State.COPYING:
            return words
    else:
        words = ""
        drive.snapshots, drive.plan = recall(ledger, request, drive.source)
        again = hand_out_lost(drive, standing)
        if ledger.standing(job_id).state.final:
            return again
        words = again
    handed = _top_up(drive)
    published = Publisher(drive).publish()
    # Publishing takes time, in which batches came to their end.
    handed += _top_up(drive)
    ended = _conclude(drive)
    said = [words, f"{counted(handed, 'batch', 'batches')} handed out" if handed else "", published, ended]
    return "; ".join(part for part in said if part) or "nothing to do yet"


def _prepare(drive: Drive) -> str:
    """Plan the job, and refuse or answer what needs no copying."""
    ledger, request, job_id = drive.ledger, drive.request, drive.job_id
    if not ledger.advance(job_id, State.PLANNING):
        return "the job has ended already"
    log.info(
        "job begins",
        extra=logs.fields(
            source=request.source.url,
            destination=request.destination.url,
            snapshots="all" if request.everything else len(request.snapshot_ids),
        ),
    )
    try:
        drive.source.check()
        drive.destination.check(for_writing=True)
    except StoreError as error:
        if may_wait_for(ledger, request, error):
            raise
        # A store that cannot be reached before anything was begun is more likely misspelt than away:
        # say so at once instead of trying again.
        fail_job(ledger, job_id, f"{type(error).__name__}: {error}")
        return f"failed: {error}"
    ledger.set_fields(job_id, **{ANSWERED: 1})
    drive.snapshots, plan = prepare(ledger, request, drive.source, drive.destination)
    drive.plan = plan
    totals = {
        "objects_total": plan.objects,
        "bytes_total": plan.size_bytes,
        "batches_total": plan.batches,
        **freeze(request, drive.snapshots),
    }
    if request.dry_run or request.budget.limited:
        found = survey(request, drive.snapshots, plan, drive.source, drive.destination)
        totals["estimate"] = json.dumps(found)
        if request.dry_run:
            totals["present"] = found["objects"]["present"]
            end_job(ledger, job_id, State.DONE, **totals)
            return f"dry run: {found['objects']['to_copy']} of {plan.objects} objects would be copied"
        if found["refused"]:
            end_job(ledger, job_id, State.FAILED, error=f"{found['refused']}. Nothing was written.", **totals)
            return f"refused: {found['refused']}"
    drive.destination.prepare()
    if not ledger.advance(job_id, State.COPYING, **totals):
        return "the job has ended already"
    count = len(drive.snapshots.of(PLANNED))
    what = f"{counted(count, 'snapshot')}, {counted(plan.objects, 'object')}, {size(plan.size_bytes)}"
    return f"{what} in {counted(plan.batches, 'batch', 'batches')}"


def _cancel(app: Celery, ledger: Ledger, job_id: str, standing: Standing) -> str:
    if standing.state.final:
        return f"the job is {standing.state} already"
    if standing.running:
        look_after(app, job_id, "cancelling", in_s=CANCEL_LOOK_S)
        return f"cancelling; {counted(standing.running, 'batch', 'batches')} still on their way"
    end_job(ledger, job_id, State.CANCELLED)
    return "cancelled"


def _stop_over_budget(app: Celery, ledger: Ledger, job_id: str, standing: Standing, why: str) -> str:
    """End a job whose budget is spent, once what runs of it has ended and is accounted for."""
    if standing.running:
        look_after(app, job_id, "over budget", in_s=CANCEL_LOOK_S)
        return f"{why}; {counted(standing.running, 'batch', 'batches')} still on their way"
    fail_job(ledger, job_id, f"{why}. What was copied stays; no manifest was written that lacks objects.")
    return why


def _top_up(drive: Drive) -> int:
    """Queue further batches of the plan, until as many are on their way as there may be; return how many."""
    ledger, request = drive.ledger, drive.request
    standing = ledger.standing(drive.job_id)
    if standing.paused or standing.cancelling or standing.state.final:
        return 0
    most = max(1, request.window_batches // 2)
    handed = standing.handed
    for window in drive.plan.windows(handed, most):
        on_their_way = handed - standing.done
        if on_their_way and on_their_way + len(window) > request.window_batches:
            break
        batches = [drive.plan.batch(number) for number in window]
        words = drive.snapshots_of(window.start)
        hand_out(drive.app, request, batches, series=PLAN, of=drive.plan.batches, snapshots=words)
        handed = window.stop
        if not ledger.set_fields(drive.job_id, batches_handed=handed):
            break
    return handed - standing.handed


def _conclude(drive: Drive) -> str:
    """End the job if every snapshot of it has come to an end."""
    ledger, job_id = drive.ledger, drive.job_id
    status = ledger.status(job_id)
    if status.state.final or status.snapshots_settled < status.snapshots_total:
        return ""
    if status.snapshots_failed:
        end_job(
            ledger, job_id, State.FAILED, error=_failed_words(drive, status.failed, status.snapshots_failed)
        )
        return f"{counted(status.snapshots_failed, 'snapshot')} could not be published"
    if drive.request.prune is not None and (refusal := _prune(drive, drive.request.prune)):
        fail_job(ledger, job_id, f"all snapshots are published; {refusal}")
        return refusal
    end_job(ledger, job_id, State.DONE)
    return "done"


def _prune(drive: Drive, options: Prune) -> str:
    """Delete what the source does not have; return "", or what came of it instead."""
    ledger, job_id = drive.ledger, drive.job_id

    def record(doomed: list[str]) -> None:
        # After an interruption some are deleted already.
        ids = sorted({*unpack(ledger.field(job_id, "deleted_ids")), *doomed})
        ledger.set_fields(job_id, deleted=len(ids), deleted_ids=pack(ids))

    try:
        refusal = prune(options, drive.source, drive.destination, record)
    except StoreError as error:
        if error.transient:
            raise
        left = len(surplus(drive.source, drive.destination)[0])
        return f"{left} manifests that the source does not have could not be deleted: {error}"
    return f"nothing was deleted: {refusal}" if refusal else ""


def _failed_words(drive: Drive, failed: int, unpublished: int) -> str:
    total = len(drive.snapshots.ids)
    what = f"{failed:,} of {drive.plan.objects:,} objects could not be copied" if failed else ""
    given_up = drive.ledger.field(drive.job_id, "given_up") if failed else ""
    what += f" ({given_up})" if given_up else ""
    if not what:
        groups = drive.ledger.groups(drive.job_id).values()
        what = next((row[-1] for rows in groups for row in rows.values() if row[-1]), "")
    if total == 1:
        return f"{what}; the manifest was not written. Run it again to resume."
    unread = list(drive.snapshots.reasons.values())
    also = (
        f"{counted(len(unread), 'manifest')} could not be read at the source ({unread[0]})" if unread else ""
    )
    why = " and ".join(part for part in (what, also) if part)
    published = total - unpublished
    which = f"{unpublished} of {total} snapshots are not published"
    which = which if published else f"none of {total} snapshots is published"
    others = f". The other {published} are" if published else ""
    return f"{which}{f': {why}' if why else ''}{others}."


def _open_both(
    request: JobRequest, access: AccessPolicy, *, create: bool
) -> tuple[SnapshotStore, SnapshotStore]:
    deletes = request.prune is not None and not request.dry_run
    rights = (Right.WRITE, Right.DELETE) if deletes else (Right.WRITE,)
    source, destination = request.source, request.destination
    if parse_url(source.url).same_place(parse_url(destination.url)):
        raise InvalidStoreURL(source.url, "", "source and destination are the same store")
    return (
        open_store(source.url, source.objects_url, Right.READ, access=access, create=create),
        open_store(destination.url, destination.objects_url, *rights, access=access, create=create),
    )
