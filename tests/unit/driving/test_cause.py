"""Why a job failed, as its record has it, and that what is then advised can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snapferry.orchestrator.driving.ending import fail_job
from snapferry.orchestrator.driving.steps import abandon
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.tasks import run_drive
from snapferry.stores.address import Address, manifest_key, object_key, parse_address
from snapferry.stores.errors import AccessDenied
from snapferry.workers.job_state import BUDGET, DELETION
from snapferry.workers.ledger import State
from snapferry.workers.messages import Budget, Prune
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files
from tests.unit.bound_task import BoundTask

from .fleet import Fleet


def addresses(fleet: Fleet) -> list[Address]:
    manifest = (fleet.source / manifest_key(fleet.snapshot)).read_text()
    return [parse_address(line.split()[2]) for line in manifest.splitlines() if line.startswith("F")]


def to_the_end(fleet: Fleet) -> None:
    run_drive(BoundTask(), fleet.ledger, "job", fleet.drive)
    for queued in list(fleet.queued):
        fleet.copy(queued)
    if not fleet.status.state.final:
        run_drive(BoundTask(), fleet.ledger, "job", fleet.drive)


def object_gone(fleet: Fleet) -> None:
    (fleet.source / object_key(addresses(fleet)[0])).unlink()
    to_the_end(fleet)


def manifest_gone(fleet: Fleet) -> None:
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    to_the_end(fleet)


def source_gone(fleet: Fleet) -> None:
    fleet.source.rename(fleet.source.with_name("elsewhere"))
    to_the_end(fleet)


def over_budget(fleet: Fleet) -> None:
    fleet.submit(fleet.snapshot, budget=Budget(max_objects=3))
    to_the_end(fleet)


def deletion_refused(fleet: Fleet) -> None:
    for number in range(2):
        make_store(fleet.destination, random_files(2, seed=number + 7))
    fleet.submit(fleet.snapshot, prune=Prune(max_delete=1))
    to_the_end(fleet)


def ended_early(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0)
    fail_job(fleet.ledger, "job", "x", cause=AccessDenied.__name__)


def cancelled(fleet: Fleet) -> None:
    fleet.drive()
    fleet.ledger.cancel("job")
    fleet.drive()


@pytest.mark.parametrize(
    ("end", "state", "cause", "command"),
    [
        (object_gone, State.FAILED, "ObjectMissing", "retry"),
        (manifest_gone, State.FAILED, "ManifestMissing", "resume"),
        (source_gone, State.FAILED, "StoreNotFound", "resume"),
        (over_budget, State.FAILED, BUDGET, ""),
        (deletion_refused, State.FAILED, DELETION, ""),
        (ended_early, State.FAILED, "AccessDenied", "retry"),
        (cancelled, State.CANCELLED, "", "resume"),
    ],
)
def test_the_record_names_the_cause_and_the_advised_command_is_accepted(
    fleet: Fleet,
    redis_url: str,
    end: Callable[[Fleet], Any],
    state: State,
    cause: str,
    command: str,
) -> None:
    end(fleet)

    found = fleet.status
    assert (found.state, found.cause) == (state, cause)
    argv = advise(found).argv
    assert argv == (("snapferry", command, "job") if command else ())
    if command:
        assert getattr(Jobs(Settings(broker_url=redis_url), check=False), command)("job")


def test_a_job_that_failed_before_its_objects_were_tried_is_resumed(
    fleet: Fleet, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.drive()
    monkeypatch.setattr(abandon, "recalled", lambda *_: None)
    fail_job(fleet.ledger, "job", "x")

    assert fleet.status.cause == ""
    assert advise(fleet.status).argv == ("snapferry", "resume", "job")
    assert Jobs(Settings(broker_url=redis_url), check=False).resume("job")


def test_the_most_frequent_class_of_error_is_the_cause(fleet: Fleet) -> None:
    gone, *others = addresses(fleet)
    (fleet.source / object_key(gone)).unlink()
    for address in others[:3]:
        (fleet.source / object_key(address)).write_bytes(b"wrong")
    to_the_end(fleet)

    assert (fleet.status.failed, fleet.status.cause) == (4, "IntegrityError")
