"""The tables of what an action does: each has a row for each action."""

from __future__ import annotations

import json

import pytest

from snapferry.orchestrator.driving.actions import STEPS
from snapferry.orchestrator.driving.dispatch import batch_message
from snapferry.orchestrator.planning.batches import Batch
from snapferry.stores.hashing import digest
from snapferry.workers.copying.actions import RUNNERS
from snapferry.workers.copying.words import WORDS
from snapferry.workers.messages import Action, JobSpec, Scope, StoreRef, TreeOptions
from snapferry.workers.reachability.sides import sides_of

A, B = StoreRef(url="file:///a"), StoreRef(url="file:///b")
BATCH = Batch.of(0, {digest(b"x"): 1}, (0,))


def test_every_action_has_its_rows() -> None:
    assert RUNNERS.keys() == STEPS.keys()
    assert WORDS.keys() == set(Action)


def test_the_messages_of_a_copy_are_those_of_processes_that_know_nothing_else() -> None:
    spec = JobSpec.of(A, B, ["ab" * 32], job_id="j")
    message = batch_message(spec, BATCH, "plan")

    assert json.dumps(message.model_dump(exclude=message.new_defaults())) == (
        '{"version": 3, "job_id": "j", "series": "plan", "number": 0, "source": {"url": "file:///a", "objects_url":'
        ' null}, "destination": {"url": "file:///b", "objects_url": null}, "addresses":'
        ' "OufYBfZ4mmQCrLcK1AlqhaVr9oBOryXASTrGl1SNMLU=", "sizes": [1], "positions": [0], "concurrency": null}'
    )
    assert "action" not in spec.model_dump_json(exclude=spec.new_defaults())


def test_a_batch_has_the_options_of_its_job_but_not_the_patterns() -> None:
    spec = JobSpec.of(
        A, B, [], action=Action.PULL, more_sources=(A,), tree=TreeOptions(exclude=("x",), linked=True),
        scope=Scope(first="a"), checksum=True,
    )  # fmt: skip
    message = batch_message(spec, BATCH, "plan")

    assert (message.action, message.more_sources, message.checksum) == (Action.PULL, (A,), True)
    assert message.tree == TreeOptions(linked=True)


@pytest.mark.parametrize("action", Action)
def test_a_job_that_only_reads_has_no_side_that_is_written_to(action: Action) -> None:
    source, destination = sides_of(JobSpec.of(A, A if action is Action.VERIFY else B, [], action=action))

    assert not source.writing
    assert destination.writing == (action is not Action.VERIFY)
    assert (source == destination) == (action is Action.VERIFY)
