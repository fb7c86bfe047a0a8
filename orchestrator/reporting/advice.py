"""
What to do next about a job: one sentence, and one command.

The one place that decides it. The command line, the dashboard, JSON documents, notifications and the texts of tasks
show what `advise` returns, in their own form.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from snapferry.orchestrator.reporting.measures import Stall, stall, stuck_batches
from snapferry.orchestrator.reporting.nodes import Role
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.words import WORDS
from snapferry.workers.job_state import BUDGET, DELETION, TAG, VERSION
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import Action

# What to do about the cause of a failure, by its name in the record of the job.
_REMEDIES: Final = {
    "AccessDenied": "Give the workers and orchestrators access to the store",
    "ClockWrong": "Set the clock of the machine that was refused, by NTP",
    "NotAllowed": "Allow the store under [access] in snapferry.toml of the workers and orchestrators, and restart them",
    "StoreNotFound": "Create the directory or bucket, or mount its disk",
    "SourceEmpty": "Check the URL, and that its disk is mounted",
    "StoreFull": "Free space in the destination, or raise its quota",
    "StoreUnavailable": "Find out why the store did not answer, or wait until it does",
    "FileChanged": "Wait until no program writes to the files",
}

# The same for a command that does its job itself: its user sees no workers.
_REMEDIES_OF_A_COMMAND: Final = {
    **_REMEDIES,
    "AccessDenied": "Give your user or keys access to the store",
    "NotAllowed": "Allow the store under [access] in snapferry.toml",
}

# The same where the error names the store, by its kind: for a job of a fleet, and for a command that does its job
# itself. The URLs of a job of a fleet stay as they are.
_DIRECTORY_MISSING: Final = (
    "Create the directory, or mount its disk",
    "Create the directory, or mount its disk, or correct the URL",
)
_DIRECTORY_REFUSES: Final = (
    "Give the user of the workers and orchestrators access to the directory",
    "Give your user access to the directory",
)
_EITHER: Final = "the directory or the store"
_REMEDIES_BY_KIND: Final = {
    ("StoreNotFound", "file"): _DIRECTORY_MISSING,
    ("StoreNotFound", "tree"): _DIRECTORY_MISSING,
    ("StoreNotFound", "s3"): ("Create the bucket", "Create the bucket, or correct the URL"),
    ("AccessDenied", "file"): _DIRECTORY_REFUSES,
    ("AccessDenied", "tree"): _DIRECTORY_REFUSES,
    ("AccessDenied", "s3"): (
        "Correct the keys of the workers and orchestrators, or their permissions",
        "Correct the keys, or their permissions",
    ),
    # Of a push or a pull whose error names neither.
    ("AccessDenied", _EITHER): (
        "Give the workers and orchestrators access to the directory or the store",
        "Give your user or keys access to the directory or the store",
    ),
}

# Causes that lie in the bytes of a store.
_DAMAGE: Final = frozenset(
    {
        "KeyMissing",
        "ObjectMissing",
        "ManifestMissing",
        "IntegrityError",
        "ManifestSyntaxError",
        "NotAnObject",
        "Unreadable",
    }
)

_OTHER_REMEDY: Final = "Fix the error"

_RUN_AGAIN: Final = "Run the same command again to resume."

_error_of_store: Final = re.compile(r"(StoreNotFound|AccessDenied)(?:: | at )(file|tree|s3)://").search

# What to do where the same request would fail again.
_NEW_REQUESTS: Final = {
    VERSION: "Submit the job again, or run an orchestrator of the version that submitted it.",
    DELETION: "All snapshots are published. Check why deletions or names failed, then copy again.",
    TAG: "The snapshot is published. Give it the name ({named}).",
    BUDGET: "Start the job again with a larger budget, or with fewer snapshots.",
}


@dataclass(frozen=True)
class Advice:
    """
    What to do next: a *sentence*, and the arguments of the one command that does it, the program's name first.

    Nothing is to be done if *sentence* is "". The sentence stands by itself; *argv* is empty if no command does it.
    *named* are the arguments of a further command, which the sentence has in its text. What only a person knows is in
    capitals there.
    """

    sentence: str = ""
    argv: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sentence)

    @property
    def command(self) -> str:
        """The command for a POSIX shell, "" if there is none."""
        return shlex.join(self.argv)

    def with_options(self, *options: str) -> Advice:
        """Return this advice with further *options* of its commands; without a command, as it is."""
        argv, named = ((*command, *options) if command else () for command in (self.argv, self.named))
        sentence = self.sentence.replace(_shown(self.named), _shown(named)) if named else self.sentence
        return Advice(sentence, argv, named)

    @property
    def brief(self) -> str:
        """The sentence without the command that it names."""
        return self.sentence.replace(f" ({_shown(self.named)})", "") if self.named else self.sentence

    @property
    def text(self) -> str:
        """The sentence and the command in one line."""
        return f"{self.sentence.removesuffix('.')}: {self.command}" if self.argv else self.sentence


def advise(
    status: JobStatus,
    *,
    lacking: Role | None = None,
    again: Sequence[str] | None = None,
) -> Advice:
    """
    Return what to do next about a job of any action, whether it has ended or not.

    *lacking* is the role of which no process runs that could take the job's next step. *again* is the command line that
    began the job, for a job whose record ends with that command; None for a job of a fleet.

    A ``retry`` or ``resume`` that is advised is one that `snapferry.orchestrator.jobs.Jobs` accepts.
    """
    if status.cancelling and again is not None and not status.state.final:
        return Advice(_RUN_AGAIN, tuple(again))
    if not status.state.final:
        return _of_open_job(status, lacking)
    if status.superseded or status.dismissed is not None:
        return Advice()
    if status.continued_by:
        other = status.continued_by
        return Advice(f"Job {other} continues this job.", ("snapferry", "status", other))
    if status.state is State.DONE:
        return _of_done_job(status, again)
    return _of_stopped_job(status, again)


def _shown(argv: Sequence[str]) -> str:
    """Return the command *argv* as a sentence has it. Records of jobs may hold anything."""
    return printable(shlex.join(argv))


def _of_open_job(status: JobStatus, lacking: Role | None) -> Advice:
    job = status.job_id
    if status.cancelling:
        return Advice(
            "The job is being cancelled; running batches stop within 30 s. Resume it later to do the rest.",
            _job("resume", status),
        )
    if lacking is not None:
        queue = ("--queue", status.queue) if lacking == "worker" and status.queue else ()
        what = f"No worker serves the queue {status.queue}" if queue else f"No {lacking} is running"
        return Advice(f"{what}. Start one.", ("snapferry", lacking, *queue))
    if status.paused:
        return Advice("The job is paused. Continue it.", ("snapferry", "continue", job))
    if status.waiting is not None:
        sentence = f"Make {status.waiting.store} reachable; the job then goes on by itself. Check the stores."
        return Advice(printable(sentence), _doctor(status))
    return _of_stalled_job(status)


def _of_stalled_job(status: JobStatus) -> Advice:
    """Return what to do about a job that makes no progress and does not wait for a store."""
    match stall(status):
        case Stall.ORCHESTRATOR:
            sentence = "No orchestrator has taken the job yet. Start one, if none is running."
            return Advice(sentence, ("snapferry", "orchestrator"))
        case Stall.WORKER:
            # Had none been online, `lacking` would say so: those that are have other work, or hang.
            queue = ("--queue", status.queue) if status.queue else ()
            sentence = "No worker has taken the next batch: wait until one is free, or start another one."
            return Advice(sentence, ("snapferry", "worker", *queue))
        case Stall.BATCHES:
            worker = stuck_batches(status)[0].worker
            limits = "raise the limits of the job, or " if status.limits.any else ""
            sentence = (
                f"Check the stores. If they answer, {limits}look at the log and the mounts of {worker}."
            )
            return Advice(printable(sentence), _doctor(status))
        case None:
            return Advice()


def _doctor(status: JobStatus) -> tuple[str, ...]:
    """Return the command that checks the stores of a job: not directory trees, and one store if it only reads."""
    sides = {"source": ("--from", status.source), "destination": ("--to", status.destination)}
    sides.pop(status.action.tree_side if status.action.writes else "destination", None)
    return ("snapferry", "doctor", *chain(*sides.values()))


def _of_done_job(status: JobStatus, again: Sequence[str] | None) -> Advice:
    if not status.bounded or again is not None:
        # The same command looks at another part, so it does not go on with this one.
        return Advice()
    left = max(0, status.objects_total - status.objects_settled)
    return Advice(f"Resume the job to look at the other {counted(left, 'object')}.", _job("resume", status))


def _of_stopped_job(status: JobStatus, again: Sequence[str] | None) -> Advice:
    """Return what to do about a job that failed or was cancelled."""
    if status.cause in _NEW_REQUESTS and not (status.cause == BUDGET and status.batches_handed):
        named: tuple[str, ...] = ()
        if status.cause == TAG:
            named = ("snapferry", "tag", status.destination, status.first_snapshot, "NAME")
        return Advice(_NEW_REQUESTS[status.cause].format(named=_shown(named)), named=named)
    if status.state is State.CANCELLED:
        return _of_cancelled_job(status, again)
    named = _repair(status)
    remedy = _remedy(status, named, alone=again is not None)
    if again is not None:
        return Advice(f"{remedy}, then run the same command again.", tuple(again), named)
    if status.dry_run:
        # No command continues a dry run.
        return Advice(f"{remedy}, then do the dry run again.", named=named)
    if status.retryable:
        objects = counted(status.failed, f"failed {WORDS[status.action].unit}")
        return Advice(f"{remedy}, then {_verb(status)} the {objects} again.", _job("retry", status), named)
    return Advice(f"{remedy}, then resume the job.", _job("resume", status), named)


def _of_cancelled_job(status: JobStatus, again: Sequence[str] | None) -> Advice:
    if again is not None:
        return Advice(_RUN_AGAIN, tuple(again))
    if status.dry_run:
        return Advice()
    return Advice("The job was cancelled. Resume it to do the rest.", _job("resume", status))


def _repair(status: JobStatus) -> tuple[str, ...]:
    """Return the command that repairs the store that a job could not read, without the store to repair it from."""
    in_tree = status.action is Action.PUSH or (status.action is Action.PULL and status.cause == "NotAnObject")
    if status.cause not in _DAMAGE or in_tree:
        return ()
    if status.snapshots_total == 1:
        which: tuple[str, ...] = ("--id", status.first_snapshot)
    else:
        # A manifest that is gone is not among all that the store lists.
        which = ("--id", "ID") if status.cause == "ManifestMissing" else ("--all",)
    objects = ("--objects", status.source_objects) if status.source_objects else ()
    return ("snapferry", "heal", status.source, *objects, "--from", "OTHER_STORE", *which)


def _remedy(status: JobStatus, named: Sequence[str], *, alone: bool) -> str:
    if status.cause == BUDGET:
        return "Check the budget"
    if status.cause in _DAMAGE:
        if status.action is Action.PUSH:
            return "Correct the files that the error names"
        if status.action is Action.PULL and status.cause == "NotAnObject":
            return "Remove what is in the way in the tree"
        store = "store" if status.action is Action.VERIFY else "source"
        return f"Repair the {store} from another copy ({_shown(named)})"
    found = _error_of_store(status.error)
    kind = found[2] if found and found[1] == status.cause else _EITHER if status.action.tree_side else ""
    if of_kind := _REMEDIES_BY_KIND.get((status.cause, kind)):
        return of_kind[alone]
    remedies = _REMEDIES_OF_A_COMMAND if alone else _REMEDIES
    return remedies.get(status.cause, _OTHER_REMEDY)


def _verb(status: JobStatus) -> str:
    return WORDS[status.action].change


def _job(command: str, status: JobStatus) -> tuple[str, ...]:
    return ("snapferry", command, status.job_id)
