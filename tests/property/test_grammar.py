"""Every text with a count has its noun and its verb in the right number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.orchestrator.driving.outcome import DriveOutcome, PlanSize
from snapferry.orchestrator.reporting.progress import progress_text
from snapferry.orchestrator.reporting.text.drive import describe_drive
from snapferry.orchestrator.reporting.text.failures import failures_head
from snapferry.orchestrator.reporting.text.interrupted import interrupted_text
from snapferry.orchestrator.reporting.text.limits import limit_text
from snapferry.orchestrator.reporting.text.outcome import done_text
from snapferry.orchestrator.reporting.text.status import stall_text, status_lines
from snapferry.stores.text.format import counted
from snapferry.workers.copying.describe import describe_outcome
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import Action, Limits
from snapferry.workers.outcome import BatchOutcome
from tests.unit.test_progress import STATUS

REPOSITORY: Final = Path(__file__).parents[2]

NOUNS: Final = (
    "batch batches byte bytes day days directory directories file files group groups job jobs manifest manifests"
    " message messages name names object objects pass passes place places request requests share shares"
    " snapshot snapshots task tasks time times worker workers"
)
PLURALS: Final = "|".join(noun for noun in NOUNS.split() if noun.endswith("s") and noun != "pass")
SINGULARS: Final = "|".join({*NOUNS.split()} - {*PLURALS.split("|")})
ADJECTIVE: Final = r"(?:(?:other|open|queued|unreadable|more|of its) )?"

WRONG: Final = re.compile(
    # "1 objects", and "2 of 1 objects"; but not "1 of 294 objects".
    rf"(?<![\d,./])1 {ADJECTIVE}(?:{PLURALS})\b"
    rf"|(?<![\d,./])(?!1 )[\d,]+ {ADJECTIVE}(?:{SINGULARS})\b"
    # "1 object are", "1 of 294 objects are"
    rf"|(?<![\d,./])1 (?:of [\d,]+ )?{ADJECTIVE}(?:{PLURALS}|{SINGULARS}) (?:are|were|have)\b"
    rf"|(?<![\d,./])(?<!of )(?!1 )[\d,]+ {ADJECTIVE}(?:{PLURALS}) (?:is|was|has)\b"
    rf"|(?<![\d,./])(?!1 )[\d,]+ of (?!1 )[\d,]+ {ADJECTIVE}(?:{PLURALS}) (?:is|was|has)\b"
)

COUNTS: Final = st.sampled_from([0, 1, 2, 3, 294, 1000, 12_345])
_NUMBERS: Final = [
    field.name
    for field in fields(JobStatus)
    if field.type == "int" and field.name not in ("objects_settled", "bytes_settled")
]


@pytest.mark.parametrize(
    "text",
    [
        "1 objects", "1 of 1 objects", "2 of 1 objects", "2 object", "0 object", "1 of 294 objects are missing",
        "2 of 294 objects is missing", "1 snapshots are published", "1,000 file", "1 of its objects are",
        "after 1 passes", "1 batch were", "11 objects is", "21 file",
    ],
)  # fmt: skip
def test_the_check_finds_what_is_wrong(text: str) -> None:
    assert WRONG.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "1 object", "1 of 294 objects is missing", "0 of 294 objects are", "1 of 1 object is", "1,001 objects are",
        "294 objects of 1 snapshot", "2 of 1 object", "3 of 3 snapshots are published", "11 objects", "21 files are",
    ],
)  # fmt: skip
def test_the_check_lets_the_right_pass(text: str) -> None:
    assert not WRONG.search(text)


@given(
    COUNTS, st.none() | COUNTS, st.sampled_from([("object", ""), ("batch", "batches"), ("pass", "passes")]),
    st.sampled_from(["", "is", "was", "has"]),
)  # fmt: skip
def test_a_count_has_its_noun_and_verb(count: int, of: int | None, noun: tuple[str, str], verb: str) -> None:
    text = counted(count, *noun, of=of, verb=verb)

    assert not WRONG.search(text), text
    assert re.sub(r"\D+", " ", text.replace(",", "")).split() == [
        str(n) for n in (count, of) if n is not None
    ]


@st.composite
def statuses(draw: st.DrawFn) -> JobStatus:
    """Jobs with any counts, which need not add up."""
    changed: dict[str, Any] = {name: draw(COUNTS) for name in _NUMBERS}
    return replace(
        STATUS,
        action=draw(st.sampled_from(list(Action))),
        state=draw(st.sampled_from(list(State))),
        bounded=draw(st.sampled_from(["", "max_bytes", "max_seconds"])),
        objects_settled=min(draw(COUNTS), changed["objects_total"]),
        **changed,
    )


@given(statuses())
@example(replace(STATUS, action=Action.VERIFY, objects_total=294, failed=1, present=293))
@example(replace(STATUS, snapshots_total=3, snapshots_published=1))
def test_the_texts_of_a_job_are_right(status: JobStatus) -> None:
    texts = [
        done_text(status), interrupted_text(status), progress_text(status), stall_text(status),
        failures_head(status, {}), *status_lines(status, {"IntegrityError": 1}),
    ]  # fmt: skip

    assert not [text for text in texts if WRONG.search(text)]


@given(
    st.builds(
        DriveOutcome,
        planned=st.none() | st.builds(PlanSize, COUNTS, COUNTS, COUNTS, COUNTS),
        to_do=st.none() | COUNTS,
        action=st.sampled_from(list(Action)),
        **dict.fromkeys(
            ("requeued", "abandoned", "queued", "published", "unpublished", "healing", "running"), COUNTS
        ),
    ),
    st.builds(BatchOutcome, copied=COUNTS, present=COUNTS, bytes_copied=COUNTS),
    st.builds(Limits, requests=st.sampled_from([1, 2]), jobs=st.sampled_from([1, 2])),
)
def test_the_texts_of_tasks_are_right(drive: DriveOutcome, batch: BatchOutcome, limits: Limits) -> None:
    texts = [describe_drive(drive), describe_outcome(batch, 1.0, drive.action), limit_text(limits)]

    assert not [text for text in texts if WRONG.search(text)]


def _counts_without_help(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of texts that put a number, which is no constant, before a plural."""
    plural = re.compile(rf" (?:of )?{ADJECTIVE}(?:{PLURALS})\b").match
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(after, ast.Constant)
                and plural(str(after.value))
                and not _is_fixed(value.value)
            ):
                yield value.lineno


def _is_fixed(value: ast.expr) -> bool:
    """Return whether *value* is a constant, a limit such as ``bounds().objects``, or a size with its unit."""
    text = ast.unparse(value)
    constants = any(isinstance(node, ast.Name) and node.id.isupper() for node in ast.walk(value))
    return constants or text == "most" or text.startswith(("bounds()", "size("))


@pytest.mark.parametrize("part", ["stores", "workers", "orchestrator"])
def test_every_count_that_may_be_one_goes_through_the_helper(part: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sorted((REPOSITORY / part).rglob("*.py"))
        for line in _counts_without_help(ast.parse(path.read_text()))
    ]

    assert found == []
