"""What is reported of a job: in words that cannot control a terminal, and in documents."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.reporting import documents
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.orchestrator.reporting.text import failures, outcome, status
from snapferry.orchestrator.reporting.text.dry_run import dry_run_lines
from snapferry.orchestrator.reporting.text.interrupted import interrupted_text
from snapferry.stores.address import parse_address
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import FailedObject, State
from snapferry.workers.messages import Action
from snapferry.workers.outcome import Failure

from .test_progress import STATUS

DONE = replace(
    STATUS,
    state=State.DONE,
    snapshots_published=1,
    batches_done=3,
    objects_settled=100,
    bytes_settled=1000,
    copied=60,
    present=40,
    bytes_copied=600,
    submitted_at=1000.0,
    started_at=1001.0,
    ended_at=1005.5,
)

ESTIMATE: dict[str, Any] = {
    "snapshots": {"total": 3, "planned": 2, "trusted": 1, "unreadable": 0},
    "batches": 2,
    "groups": 1,
    "objects": {"total": 1500, "present": 300, "to_copy": 1200},
    "bytes": {"total": 5000, "to_copy": 4000},
    "requests": {"source": {}, "destination": {"PutObject": 1200, "HeadObject": 0, "ListObjectsV2": 2}},
    "cost": 0.00612,
    "currency": "EUR",
    "exact": False,
}


def letter(number: int, *, error: str = "ObjectMissing", detail: str = "it is not here") -> DeadLetter:
    failure = Failure(parse_address(f"{number:064x}"), error, "file:///a", detail, transient=False)
    return DeadLetter(failure.address, 7, FailedObject(failure, 2, "one@host"))


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({}, ["snapshot 5e5e", "100 objects", "60 copied (600 B)", "40 already present"]),
        ({"healed": 2, "deleted": 1}, ["60 copied", "2 healed", "1 manifest deleted"]),
        ({"snapshots_total": 3, "snapshots_published": 3}, ["3 of 3 snapshots", "100 objects"]),
        ({"copied": 0, "present": 100}, ["nothing to copy", "all 100 objects", "snapshot 5e5e"]),
        (
            {"snapshots_published": 0, "snapshots_trusted": 1, "objects_total": 0, "copied": 0},
            ["nothing to copy", "snapshot 5e5e", "--trust-manifest"],
        ),
        (
            {"objects_total": 0, "objects_settled": 0, "copied": 0, "present": 0},
            ["snapshot 5e5e is published", "its manifest is written"],
        ),
        (
            {"objects_total": 0, "objects_settled": 0, "copied": 0, "present": 0, "action": Action.PUSH},
            ["snapshot 5e5e is published", "its manifest is written"],
        ),
        (
            {"objects_total": 0, "objects_settled": 0, "copied": 0, "present": 0, "action": Action.PULL},
            ["snapshot 5e5e is fetched", "no files"],
        ),
        (
            {"snapshots_total": 5, "snapshots_published": 3, "snapshots_trusted": 2},
            ["5 of 5 snapshots", "2 of them", "--trust-manifest", "100 objects"],
        ),
        (
            {"snapshots_total": 0, "snapshots_published": 0, "objects_total": 0, "copied": 0},
            ["nothing to copy", "no snapshots"],
        ),
    ],
)
def test_a_job_that_is_done_is_one_line(changed: dict[str, Any], facts: list[str]) -> None:
    found = outcome.done_text(replace(DONE, **changed))

    at = [found.find(fact) for fact in facts]
    assert at == sorted(at)
    assert -1 not in at
    assert found.endswith(", in 5.5 s")
    assert "\n" not in found


@pytest.mark.parametrize(
    ("action", "changed", "said", "unsaid"),
    [
        (Action.COPY, {}, ["Copied objects are kept", "No snapshot was published."], []),
        (
            Action.COPY,
            {"snapshots_total": 3, "snapshots_published": 1},
            ["1 of 3 snapshots is published."],
            [],
        ),
        (Action.COPY, {"state": State.COPYING}, ["Copied objects are kept"], ["snapshot"]),
        (Action.PULL, {"state": State.COPYING}, ["are kept"], ["complete"]),
        (Action.PUSH, {}, ["Pushed objects are kept", "No snapshot was published."], ["opied"]),
        (Action.PULL, {}, ["Files that were written are kept", "is not complete"], ["opied", "snapshot"]),
        (
            Action.HEAL,
            {},
            ["Healed objects stay healed", "20 of 100 objects were looked at."],
            ["opied", "snapshot"],
        ),
        (Action.HEAL, {"failed": 1}, ["21 of 100 objects were looked at, 1 object is wrong"], ["opied"]),
        (
            Action.VERIFY,
            {"copied": 0},
            ["Nothing was written.", "10 of 100 objects were"],
            ["opied", "snapshot"],
        ),
        (Action.VERIFY, {"copied": 0, "present": 0}, ["Nothing was written."], ["looked at", "snapshot"]),
        *((action, {"dry_run": True}, ["Nothing was written."], ["kept"]) for action in Action),
    ],
)
def test_what_an_interrupted_job_did_is_said_in_the_words_of_its_action(
    action: Action, changed: dict[str, Any], said: list[str], unsaid: list[str]
) -> None:
    text = interrupted_text(replace(STATUS, **{"action": action, "state": State.CANCELLED, **changed}))

    assert all(part in text for part in said), text
    assert not any(part in text for part in unsaid), text


def test_a_dry_run_names_requests_and_cost_as_far_as_they_are_known() -> None:
    lines = dry_run_lines(replace(DONE, source="s3://x?region=1", destination="s3://y"), ESTIMATE)

    assert lines == [
        "would copy 1,200 of 1,500 objects, 4.0 kB of 5.0 kB; 300 already present. Nothing was written.",
        "  snapshots  3, 1 not checked (--trust-manifest)",
        "  batches    2",
        "  requests   about 2 ListObjectsV2, 1,200 PutObject at s3://y",
        "  cost       about 0.0061 EUR",
    ]


def test_a_dry_run_lists_twenty_deletions_and_says_when_they_would_be_refused() -> None:
    doomed = [f"{number:064x}" for number in range(25)]

    lines = dry_run_lines(DONE, ESTIMATE | {"delete": doomed, "delete_refused": "too many"})

    assert lines[5:7] == [
        "  deletions  would refuse to delete 25 manifests at the destination",
        "             too many",
    ]
    assert lines[7:] == [*(f"    {snapshot}" for snapshot in doomed[:20]), "    and 5 more"]


def test_alike_failures_are_one_line() -> None:
    letters = [*(letter(n) for n in range(3)), letter(9, error="IntegrityError", detail="evil \x1b[31m")]

    lines = failures.failure_lines(letters, 6)

    assert lines == [
        f"  3 x ObjectMissing at file:///a: it is not here ({0:064x}, ...)",
        f"  1 x IntegrityError at file:///a: evil \\x1b[31m ({9:064x})",
        "  and 2 more (--json lists the first 1,000)",
    ]


def test_files_that_failed_alike_are_one_line_although_their_paths_differ() -> None:
    """A push or pull gives the path of each file before the reason."""
    letters = [letter(n, error="StoreFull", detail=f"./a: {n}: No space left") for n in range(3)]
    for n, one in enumerate(letters):
        one.path = f"./a: {n}"
        one.places = [("5e" * 32, one.path)]

    assert failures.failure_lines(letters, 3) == ["  3 x StoreFull at file:///a: No space left (./a: 0, ...)"]
    assert failures.failure_lines(letters[:1], 1) == ["  1 x StoreFull at file:///a: No space left (./a: 0)"]


def test_a_file_that_failed_is_named_by_its_path() -> None:
    """Its address in the plan is the digest of its path, and no object has it."""
    one = letter(1, detail="./evil\x1b[31m: it is gone")
    one.path = "./evil\x1b[31m"
    one.places, one.places_total = [("5e" * 32, one.path)], 1

    assert failures.places_lines([one] * 22) == [r"  ./evil\x1b[31m"] * 20 + [
        "  and 2 other files; --json lists them"
    ]
    assert failures.letter_lines(one)[0] == r"./evil\x1b[31m  ObjectMissing at file:///a: it is gone"
    assert len(failures.letter_lines(one)) == 2
    one.known = None
    assert failures.letter_lines(one)[0].startswith(r"./evil\x1b[31m  reason not kept")


def test_a_failed_object_has_its_paths_escaped_and_counted() -> None:
    one = letter(1)
    one.places = [("5e" * 32, f"./{n}\n\x1b]0;title\x07\u202e") for n in range(30)]
    one.places_total = 1234

    lines = failures.letter_lines(one)

    assert lines[0] == f"{1:064x}  ObjectMissing at file:///a: it is not here"
    assert lines[1] == "    tried 2 times, last by one@host"
    assert lines[2] == "    5e5e5e5e  ./0\\n\\x1b]0;title\\x07\\u202e"
    assert lines[22:] == ["    and 1,214 more"]
    assert json.loads(json.dumps(documents.letter_document(one)))["places"][0]["path"] == one.places[0][1]


def test_a_failed_object_whose_error_was_not_kept_says_so() -> None:
    unknown = DeadLetter("a" * 64, 7)

    assert [line.split()[0] for line in failures.letter_lines(unknown)] == ["a" * 64]
    assert documents.letter_document(unknown) == {
        "address": "a" * 64,
        "manifest": None,
        "size": 7,
        "error": None,
        "store": None,
        "detail": None,
        "attempts": None,
        "worker": None,
        "places": [],
        "places_total": 0,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [("./ä b", "./ä b"), ("a\tb\r", "a\\tb\\r"), ("\udcff", "\\udcff"), ("\x9b31m", "\\x9b31m"), ("", "")],
)
def test_what_does_not_show_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_document_of_a_job_that_runs_has_no_end() -> None:
    now = time.time()
    running = replace(STATUS, submitted_at=now - 20, started_at=now - 10, moved_at=now)

    found = documents.status_document(running)

    assert (found["state"], found["ended"], found["paused"]) == ("copying", None, False)
    assert found["progress"]["share"] == 0.25
    assert found["progress"]["bytes_per_second"] == pytest.approx(10, abs=2)
    assert found["progress"]["seconds_left"] == pytest.approx(30, abs=1)
    assert found["seconds"] == pytest.approx(20, abs=1)
    assert "estimate" not in found


def test_the_document_of_a_dry_run_says_what_would_be_copied() -> None:
    dry = replace(DONE, dry_run=True)

    assert documents.status_document(dry, ESTIMATE)["objects"]["to_copy"] == 1200
    assert documents.status_document(dry, ESTIMATE)["estimate"] == ESTIMATE
    assert documents.status_document(DONE, ESTIMATE)["objects"]["to_copy"] == 0, "it was copied"


def test_documents_list_a_thousand_failures_at_most() -> None:
    letters = [letter(number) for number in range(1200)]

    assert len(documents.end_document(DONE, letters)["errors"]) == 1000
    assert documents.end_document(DONE, letters)["errors"][0] == {
        "address": f"{0:064x}",
        "error": "ObjectMissing",
        "store": "file:///a",
        "detail": "it is not here",
        "places": [],
        "places_total": 0,
    }


def test_status_leaves_out_what_there_is_not() -> None:
    now = time.time()
    running = replace(STATUS, paused=True, submitted_at=now - 65, workers=("one@host/7",))

    lines = status.status_lines(running, {})

    assert [line.split()[0] for line in lines] == [
        "job", "state", "from", "to", "done", "snapshots", "objects", "bytes", "batches", "workers", "submitted",
    ]  # fmt: skip
    assert "state       copying, paused" in lines
    assert lines[-1].endswith("(1 min ago)")


def test_a_job_in_a_list_is_a_row_of_its_head() -> None:
    row = status.job_row(replace(DONE, source="s3://x?region=1", ended_at=time.time() - 7300))

    assert len(row) == len(status.JOBS_HEAD)
    assert row == ("1234", "done", "1/1", "100%", "1.0 kB", "2 h ago", "s3://x → file:///b")


def test_a_failed_snapshot_in_a_list_is_none_of_those_that_are_there() -> None:
    failed = replace(DONE, state=State.FAILED, snapshots_total=3, snapshots_published=1, snapshots_failed=1)

    assert status.job_row(failed)[2] == "1/3"
    assert status.job_row(replace(failed, snapshots_trusted=1))[2] == "2/3"


def test_of_a_snapshot_that_waits_nothing_is_counted_yet() -> None:
    row = SnapshotRow("ab" * 32, "pending")

    assert status.snapshot_row(row) == ("ab" * 32, "pending", *["-"] * 6, "")
    assert len(status.snapshot_row(row)) == len(status.SNAPSHOTS_HEAD)


def test_a_job_without_a_plan_in_a_list_has_no_share() -> None:
    queued = replace(STATUS, state=State.QUEUED, objects_total=0, submitted_at=time.time())

    assert status.job_row(queued)[3:6] == ("-", "1.0 kB", "for 0 s")


@given(
    st.sampled_from(State),
    st.sampled_from(Action),
    *[st.integers(0, 30)] * 5,
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_the_counts_of_each_aspect_add_up_to_its_total(
    state: State,
    action: Action,
    copied: int,
    present: int,
    failed: int,
    running: int,
    left: int,
    published: int,
    trusted: int,
) -> None:
    total = copied + present + failed + running + left
    job = replace(
        STATUS,
        state=state,
        action=action,
        objects_total=total,
        objects_settled=total - left,
        copied=0 if action is Action.VERIFY else copied,
        present=present + (copied if action is Action.VERIFY else 0),
        failed=failed,
        snapshots_total=5,
        snapshots_published=published,
        snapshots_trusted=trusted,
        batches_done=1,
    )

    for aspect in ("snapshots", "objects", "files", "batches"):
        for line in status.status_lines(job, {}):
            if line.startswith(aspect):
                whole, _, parts = line.removeprefix(aspect).partition(":")
                counts = [int(part.split()[0].replace(",", "")) for part in parts.split(", ")]
                assert sum(counts) == int(whole.replace(",", "")), line


def test_without_a_worker_nothing_can_run_and_no_time_is_left() -> None:
    now = time.time()
    idle = replace(
        STATUS, submitted_at=now - 9, started_at=now - 9, moved_at=now - 1, workers=(), queue="tape"
    )

    lines = "\n".join(status.status_lines(idle, {}, lacks="worker"))

    assert "nothing can run: no worker that serves --queue tape is running" in lines
    assert "left" not in lines.partition("snapshots")[0]
