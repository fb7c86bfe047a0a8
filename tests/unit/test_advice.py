"""What to do next about a job: one sentence and at most one command, by the state of the job alone."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.cli.group import cli
from snapferry.orchestrator.reporting import advice
from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.text.status import stall_text
from snapferry.stores.text.printable import printable
from snapferry.workers.job_state import BUDGET, DELETION, TAG, VERSION
from snapferry.workers.ledger import JobStatus, RunningBatch, State, Waiting
from snapferry.workers.messages import Action, Limits

from .test_report import DONE

FAILED = replace(DONE, state=State.FAILED, snapshots_published=0, snapshots_failed=1)
TRIED: dict[str, Any] = {"failed": 2}
UNTRIED: dict[str, Any] = {"failed": 2, "batches_done": 2}
HANGS = RunningBatch("1234", "plan:1", "w@one\x1b[31m", 0, 0, in_flight=1, moved_at=1.0)
AGAIN = ("snapferry", "sync", "--from", "/a b", "--to", "/c")


@pytest.mark.parametrize(
    ("changed", "command"),
    [
        ({"state": State.DONE}, ""),
        ({"state": State.DONE, "bounded": "max_bytes"}, "snapferry resume 1234"),
        ({"state": State.DONE, "dry_run": True}, ""),
        (TRIED, "snapferry retry 1234"),
        (TRIED | {"cause": "ObjectMissing"}, "snapferry retry 1234"),
        (TRIED | {"action": Action.VERIFY, "cause": "IntegrityError"}, "snapferry retry 1234"),
        (TRIED | {"action": Action.HEAL}, "snapferry retry 1234"),
        (TRIED | {"action": Action.PUSH}, "snapferry retry 1234"),
        (TRIED | {"action": Action.PULL}, "snapferry retry 1234"),
        (UNTRIED, "snapferry resume 1234"),
        (UNTRIED | {"bounded": "max_seconds"}, "snapferry retry 1234"),
        ({"cause": "AccessDenied"}, "snapferry resume 1234"),
        ({"batches_handed": 0, "cause": "StoreNotFound"}, "snapferry resume 1234"),
        ({"batches_handed": 0, "cause": BUDGET}, ""),
        (UNTRIED | {"cause": BUDGET}, "snapferry resume 1234"),
        ({"cause": VERSION}, ""),
        ({"cause": DELETION}, ""),
        ({"dry_run": True}, ""),
        ({"state": State.CANCELLED}, "snapferry resume 1234"),
        ({"state": State.CANCELLED} | TRIED, "snapferry resume 1234"),
        ({"state": State.CANCELLED, "batches_handed": 0}, "snapferry resume 1234"),
        ({"state": State.CANCELLED, "dry_run": True}, ""),
        ({"state": State.COPYING}, ""),
        ({"state": State.COPYING, "paused": True}, "snapferry continue 1234"),
        ({"state": State.COPYING, "cancelling": True, "paused": True}, "snapferry resume 1234"),
        (
            {"state": State.COPYING, "waiting": Waiting("s3://b", "refused", 1.0), "source": "/a b"},
            "snapferry doctor --from '/a b' --to file:///b",
        ),
        (
            {"state": State.COPYING, "waiting": Waiting("a", "away", 1.0), "action": Action.VERIFY},
            "snapferry doctor --from file:///a",
        ),
        (
            {"state": State.COPYING, "waiting": Waiting("a", "away", 1.0), "action": Action.PUSH},
            "snapferry doctor --to file:///b",
        ),
        (
            {"state": State.COPYING, "waiting": Waiting("a", "away", 1.0), "action": Action.PULL},
            "snapferry doctor --from file:///a",
        ),
        ({"state": State.QUEUED}, "snapferry orchestrator"),
        ({"state": State.COPYING, "workers": (), "queue": "tape"}, "snapferry worker --queue tape"),
        ({"state": State.COPYING, "running": (HANGS,)}, "snapferry doctor --from file:///a --to file:///b"),
        (
            {"state": State.COPYING, "running": (HANGS,), "action": Action.VERIFY},
            "snapferry doctor --from file:///a",
        ),
    ],
)
def test_the_command_follows_from_how_far_the_job_came(changed: dict[str, Any], command: str) -> None:
    assert advise(replace(FAILED, **changed)).command == command


@pytest.mark.parametrize(
    ("role", "queue", "command"),
    [
        ("worker", "", "snapferry worker"),
        ("worker", "tape", "snapferry worker --queue tape"),
        ("orchestrator", "tape", "snapferry orchestrator"),
    ],
)
def test_a_role_that_is_missing_is_started_before_anything_else(role: Any, queue: str, command: str) -> None:
    waiting = replace(FAILED, state=State.COPYING, paused=True, queue=queue)

    assert advise(waiting, lacking=role).command == command


def test_a_job_that_another_one_continues_points_there() -> None:
    found = advise(replace(FAILED, **TRIED, continued_by="5678"))

    assert "5678" in found.sentence
    assert found.command == "snapferry status 5678"
    assert not advise(replace(FAILED, **TRIED, continued_by="5678", superseded=True))


@pytest.mark.parametrize("changed", [TRIED, UNTRIED, {"state": State.CANCELLED}, {"cause": "StoreFull"}])
def test_a_job_whose_record_ends_with_its_command_is_run_again(changed: dict[str, Any]) -> None:
    found = advise(replace(FAILED, **changed), again=AGAIN)

    assert found.command == "snapferry sync --from '/a b' --to /c"
    assert "1234" not in found.text


@pytest.mark.parametrize(
    ("error", "thing"),
    [
        ("StoreNotFound: s3://b/x at http://h: there is no bucket b", "bucket"),
        ("3 of 3 objects could not be copied (3 x StoreNotFound at file:///b: gone)", "directory"),
        ("StoreNotFound: tree:///b: gone", "directory"),
        ("StoreNotFound: sqlite:///b: gone", "directory or bucket"),
    ],
)
def test_a_store_that_does_not_exist_is_to_be_created_by_its_kind(error: str, thing: str) -> None:
    failed = replace(FAILED, cause="StoreNotFound", error=error)

    assert re.match(rf"Create the {thing}[,.]", advise(failed).sentence)
    assert "URL" not in advise(failed).sentence
    if thing != "directory or bucket":
        assert "correct the URL" in advise(failed, again=AGAIN).sentence


@pytest.mark.parametrize(
    ("error", "thing"),
    [
        ("AccessDenied: s3://b/x: Unable to locate credentials", "keys"),
        ("2 of 3 objects could not be copied (2 x AccessDenied at s3://b: 403)", "keys"),
        ("AccessDenied: file:///b: Permission denied", "directory"),
        ("AccessDenied: tree:///b: Permission denied", "directory"),
        ("AccessDenied: sqlite:///b: gone", "access to the store"),
    ],
)
def test_a_store_that_refuses_needs_other_keys_or_another_mode_by_its_kind(error: str, thing: str) -> None:
    failed = replace(FAILED, cause="AccessDenied", error=error)

    assert thing in advise(failed).sentence
    assert thing in advise(failed, again=AGAIN).sentence
    assert "worker" not in advise(failed, again=AGAIN).sentence


@pytest.mark.parametrize("action", list(Action))
def test_a_file_that_refuses_may_be_in_a_directory_that_is_no_store(action: Action) -> None:
    failed = replace(FAILED, action=action, cause="AccessDenied", error="1 of 2 files could not be pushed")

    named = "access to the directory or the store," in advise(failed, again=AGAIN).sentence

    assert named == (action in {Action.PUSH, Action.PULL})


@pytest.mark.parametrize("cause", list(advice._REMEDIES))
def test_the_user_of_one_machine_is_told_of_no_fleet(cause: str) -> None:
    words = advise(replace(FAILED, cause=cause), again=AGAIN).sentence.split()

    assert not {"worker", "workers", "orchestrator", "orchestrators"} & set(words)


CAUSES = st.sampled_from(["", "Unheard", BUDGET, DELETION, TAG, VERSION, *advice._REMEDIES, *advice._DAMAGE])
STATUSES = st.builds(
    lambda **changed: replace(FAILED, **changed),
    state=st.sampled_from(State),
    action=st.sampled_from(Action),
    cause=CAUSES,
    failed=st.integers(0, 3),
    batches_done=st.integers(0, 3),
    batches_handed=st.integers(0, 3),
    paused=st.booleans(),
    cancelling=st.booleans(),
    dry_run=st.booleans(),
    bounded=st.sampled_from(["", "max_bytes"]),
    source=st.sampled_from(["/a b", "s3://a?endpoint_url=http://x&y=1", "$(reboot)", "';x", "--help"]),
    waiting=st.sampled_from([None, Waiting("\x1b[31m", "x\n", 1.0)]),
    workers=st.sampled_from([(), ("w@one",)]),
    running=st.sampled_from([(), (HANGS,)]),
    limits=st.sampled_from([Limits(), Limits(rate=1)]),
)


@given(STATUSES, st.sampled_from([None, "worker", "orchestrator"]), st.sampled_from([None, AGAIN]))
def test_every_advice_is_one_sentence_and_at_most_one_quoted_command(
    status: JobStatus, lacking: Any, again: Any
) -> None:
    found = advise(status, lacking=lacking, again=again)

    assert "\n" not in found.text
    assert "\x1b" not in found.text
    assert found.named == () or printable(shlex.join(found.named)) in found.sentence
    assert found or not found.argv, "a command has a sentence"
    assert tuple(shlex.split(found.command)) == found.argv
    if found:
        assert found.sentence[0].isupper()
        assert found.sentence.endswith(".")
        assert found.text.count("snapferry retry") + found.text.count("snapferry resume") <= 1
    if status.state.final and status.state is not State.DONE and not status.dry_run:
        assert found, "a job that did not complete leads on"
    assert found or not stall_text(status, lacking), "a job that makes no progress leads on"


def test_options_are_added_to_a_command_alone() -> None:
    assert Advice("Do it.", ("snapferry", "x")).with_options("--broker", "redis://h").argv[2:] == (
        "--broker",
        "redis://h",
    )
    assert Advice("Do it.").with_options("--broker", "redis://h").argv == ()


def test_the_document_of_a_job_has_the_advice() -> None:
    failed = status_document(replace(FAILED, failed=2, cause="StoreFull"))

    assert failed["cause"] == "StoreFull"
    assert failed["advice"]["command"] == "snapferry retry 1234"
    assert status_document(DONE)["advice"] is None
    assert status_document(DONE)["cause"] is None


@pytest.mark.parametrize(
    ("action", "cause", "heals"),
    [
        (Action.COPY, "IntegrityError", True),
        (Action.VERIFY, "Unreadable", True),
        (Action.PULL, "ObjectMissing", True),
        (Action.PULL, "NotAnObject", False),
        (Action.PUSH, "ManifestSyntaxError", False),
        (Action.PUSH, "NotAnObject", False),
    ],
)
def test_only_a_store_is_healed_and_not_a_tree(action: Action, cause: str, heals: bool) -> None:
    found = advise(replace(FAILED, **TRIED, action=action, cause=cause))

    assert ("snapferry heal" in found.sentence) is heals


ID = FAILED.first_snapshot


@pytest.mark.parametrize(
    ("changed", "command"),
    [
        ({"action": Action.VERIFY}, f"snapferry heal '/a b' --from OTHER_STORE --id {ID}"),
        ({"snapshots_total": 2}, "snapferry heal '/a b' --from OTHER_STORE --all"),
        # What is not listed is named.
        (
            {"snapshots_total": 2, "cause": "ManifestMissing"},
            "snapferry heal '/a b' --from OTHER_STORE --id ID",
        ),
        (
            {"source_objects": "/o", "snapshots_total": 2},
            "snapferry heal '/a b' --objects /o --from OTHER_STORE --all",
        ),
        ({"cause": TAG, "destination": "s3://b?x=y"}, f"snapferry tag 's3://b?x=y' {ID} NAME"),
    ],
)
@pytest.mark.parametrize("again", [None, AGAIN])
def test_a_command_that_the_sentence_names_has_all_its_arguments(
    changed: dict[str, Any], command: str, again: Any
) -> None:
    failed = replace(
        FAILED, **TRIED | {"snapshots_total": 1, "cause": "IntegrityError", "source": "/a b"} | changed
    )
    found = advise(failed, again=again)

    assert shlex.join(found.named) == command
    assert f"({command})" in found.sentence
    assert f"({command} --broker redis://h)" in found.with_options("--broker", "redis://h").sentence


def test_a_command_that_the_sentence_names_is_one_that_snapferry_takes() -> None:
    named = [
        advise(replace(FAILED, cause=cause, snapshots_total=total)).named
        for cause in (TAG, "IntegrityError", "ManifestMissing")
        for total in (1, 2)
    ]
    for _, name, *arguments in named:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.make_context(name, arguments).params
