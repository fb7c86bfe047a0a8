"""Jobs: the record of each, from its submission to its end."""

from __future__ import annotations

from snapferry.workers.job_state import State
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import (
    BUDGET_FIELD,
    ENDED,
    INDEX,
    KEPT,
    LIMIT_FIELDS,
    MOST_ENDED,
    OPEN,
    PLAN,
    PROBLEMS,
    S3_REQUESTS_FIELD,
    SCHEDULE_FIELD,
    UNTOLD,
    WORKING,
    done_key,
    job_key,
    job_keys,
)
from snapferry.workers.ledger.queries import LONGEST_NOTE
from snapferry.workers.ledger.state import Directive, UnknownJob, UnreadableJob, state_of
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import Action, JobSpec, VerifyOptions
from snapferry.workers.queues import Priority


def request_text(spec: JobSpec) -> str:
    """Return *spec* as the field ``request`` of a job's record has it."""
    return spec.model_dump_json(exclude=spec.new_defaults())


class JobLedger(LedgerBase):
    """The records of jobs. Every method may be repeated with the same arguments."""

    def create(self, spec: JobSpec, *, s3_requests: int | None = None, schedule: str = "") -> bool:
        """
        Create the record of a job, and return whether it is new. A record that exists stays as it is.

        *s3_requests* per second is the limit of the job at S3 stores that have none of their own; None: no limit.
        The record of the job that a new one continues gets the new one's id. *schedule* names the mirror or scrub that
        queues the job, as ``mirror:nightly``.
        """
        fields = _fields_of(spec, schedule)
        if s3_requests is not None:
            fields[S3_REQUESTS_FIELD] = s3_requests
        arguments = [spec.job_id, self._expires_s, *_pairs(fields)]
        return bool(self._run(scripts.CREATE, _keys_of_new(spec.job_id, spec.continues), arguments))

    def import_ended(
        self,
        spec: JobSpec,
        state: State,
        fields: dict[str, str | float],
        *,
        submitted_at: float,
        schedule: str = "",
    ) -> bool:
        """
        Create the record of a job that ended elsewhere in a final *state*, and return whether it is new.

        A record that exists stays as it is. What *spec* determines, *fields* cannot change. Nothing drives the job.
        """
        if not state.final:
            raise ValueError(f"{state} is not final")
        own = _fields_of(spec, schedule) | {"state": state.value, "submitted_at": submitted_at}
        arguments = [spec.job_id, self._expires_s, submitted_at, *_pairs(fields | own)]
        return bool(self._run(scripts.IMPORT, [job_key(spec.job_id), INDEX], arguments))

    def withdraw(self, job_id: str, *, continues: str = "") -> bool:
        """
        Remove the record of a job that no orchestrator has begun, and its link from the job that it *continues*.

        Return whether there is no record any more.
        """
        return bool(self._run(scripts.WITHDRAW, _keys_of_new(job_id, continues), [job_id]))

    def spec(self, job_id: str) -> JobSpec:
        """
        Return the specification of the job, with the priority that it has now.

        Raises `UnknownJob`, and pydantic's ValidationError for one of another version.
        """
        spec = JobSpec.model_validate_json(self.field(job_id, "request"))
        if spec.job_id != job_id:
            raise UnreadableJob(job_id, "it has the request of another job")
        found = self.field(job_id, "priority")
        priority = Priority(found) if found in list(Priority) else spec.priority
        return spec.model_copy(update={"priority": priority})

    def field(self, job_id: str, name: str) -> str:
        """Return one field of the record of the job, "" if it is not set. Raises `UnknownJob`."""
        state, value = self._redis.hmget(job_key(job_id), ["state", name])
        if state is None:
            raise UnknownJob(job_id)
        return str(value or "")

    def advance(self, job_id: str, state: State, **fields: str | float) -> bool:
        """
        Move the job to *state* and set *fields*. Return whether the job has not ended.

        A step that is delivered late does not move the job back: then nothing changes, and the step may continue.
        """
        all_keys = [OPEN, ENDED, job_key(job_id), done_key(job_id, PLAN), *job_keys(job_id, *KEPT, *WORKING)]
        arguments = [job_id, self._expires_s, MOST_ENDED, state.value, *_pairs(fields)]
        return bool(self._run(scripts.ADVANCE, all_keys, arguments))

    def set_fields(self, job_id: str, **fields: str | float) -> bool:
        """Set *fields* of the job. Return False, and set nothing, if the job has ended or is unknown."""
        return bool(self._run(scripts.SET_FIELDS, [job_key(job_id)], [self._expires_s, *_pairs(fields)]))

    def cancel(self, job_id: str) -> State:
        """
        Cancel the job, and return its state. Workers stop at their next object, also workers that start later.

        A job that no orchestrator has begun is cancelled at once. Raises `UnknownJob`.
        """
        return state_of(job_id, self._run(scripts.CANCEL, [job_key(job_id), OPEN], [job_id]))

    def pause(self, job_id: str, *, paused: bool) -> State:
        """Pause or resume the job, and return its state. No batches of a paused job are queued. Raises `UnknownJob`."""
        return state_of(job_id, self._run(scripts.PAUSE, [job_key(job_id)], [int(paused)]))

    def dismiss(self, job_id: str, *, dismissed: bool, by: str = "", why: str = "") -> State:
        """
        Dismiss a job that failed, or take that back; return its state: nothing changes if it is another one.

        *by* whom and *why* are kept, up to 500 characters of each. Raises `UnknownJob`.
        """
        arguments: list[str | float] = [job_id, int(dismissed), by[:LONGEST_NOTE], why[:LONGEST_NOTE]]
        return state_of(job_id, self._run(scripts.DISMISS, [job_key(job_id), UNTOLD, PROBLEMS], arguments))

    def directive(self, job_id: str) -> Directive:
        """Return what the job wants: to continue, to stop, or to be held until it is resumed."""
        state, cancel, paused = self._redis.hmget(job_key(job_id), ["state", "cancel", "paused"])
        if state is None or State(str(state)).final or cancel is not None:
            return Directive.STOP
        return Directive.HOLD if paused is not None else Directive.CONTINUE

    def renew_expiry(self, job_id: str) -> None:
        """Let all keys of the job expire at the same time, counted from now."""
        with self._redis.pipeline(transaction=False) as pipe:
            for key in (job_key(job_id), done_key(job_id, PLAN), *job_keys(job_id, *KEPT, *WORKING)):
                pipe.expire(key, self._expires_s)
            pipe.execute()


def _keys_of_new(job_id: str, continues: str) -> list[RedisKey]:
    return [job_key(job_id), INDEX, OPEN, *([job_key(continues)] if continues else [])]


def _fields_of(spec: JobSpec, schedule: str) -> dict[str, str | float]:
    """Return the fields of a job's record that follow from its request."""
    ids = spec.snapshot_ids
    return {
        "request": request_text(spec),
        "source": spec.source.url,
        "destination": spec.destination.url,
        "dry_run": int(spec.dry_run),
        "priority": spec.priority.value,
        "queue": spec.queue,
        "patience": spec.patience,
        **({} if spec.everything else {"first_snapshot": ids[0] if ids else "", "snapshots_total": len(ids)}),
        **({"source_objects": spec.source.objects_url} if spec.source.objects_url else {}),
        **({} if spec.action is Action.COPY else {"action": spec.action.value}),
        **_bounds(spec.verify),
        **({BUDGET_FIELD: spec.budget.model_dump_json()} if spec.budget.limited else {}),
        **{LIMIT_FIELDS[name]: value for name, value in spec.limits if value is not None},
        **({"continues": spec.continues} if spec.continues else {}),
        **({SCHEDULE_FIELD: schedule} if schedule else {}),
    }


def _bounds(options: VerifyOptions) -> dict[str, int]:
    """Return the fields of the record with the bounds of a job, as begin.lua reads them."""
    found = {"max_read": options.max_bytes, "max_seconds": options.max_seconds}
    return {name: bound for name, bound in found.items() if bound is not None}


def _pairs(fields: dict[str, str | float]) -> list[str | float]:
    return [part for name, value in fields.items() for part in (name, value)]
