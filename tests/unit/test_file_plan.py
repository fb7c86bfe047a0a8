"""Plans of files: every file once, with its line, in memory, in a file and in the messages of its batches."""

from __future__ import annotations

import base64
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from snapferry.orchestrator.driving.dispatch import batch_message
from snapferry.orchestrator.planning import plan_file
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.trees import file_planner
from snapferry.orchestrator.planning.trees.file_planner import FilePlanner
from snapferry.stores.address import Address
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.workers.messages import (
    NEWEST_RULES,
    Action,
    BatchMessage,
    JobSpec,
    StoreRef,
    encode_addresses,
    encode_lines,
)
from snapferry.workers.messages.base import MOST_OBJECTS
from snapferry.workers.messages.files import files_of, line_of
from snapferry.workers.messages.lines import MOST_LINE_BYTES, decode_lines
from tests.property.strategies import addresses

MAX_BYTES = 1000

sizes = st.integers(0, 2 * MAX_BYTES)
lines_of_files = st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=40), max_size=60)


def planned(files: dict[bytes, tuple[bytes, int]]) -> Plan:
    planner = FilePlanner(max_objects=10, max_bytes=MAX_BYTES)
    for path, (line, size) in files.items():
        planner.add(path, line, size)
    assert planner.files == len(files)
    return planner.finish()


def assert_holds(plan: Plan, files: dict[bytes, tuple[bytes, int]]) -> None:
    spec = JobSpec.of(StoreRef(url="/a"), StoreRef(url="/b"), None)
    found: dict[str, tuple[bytes, int]] = {}
    for number in range(plan.batches):
        batch = plan.batch(number)
        assert batch.size_bytes <= MAX_BYTES or len(batch.sizes) == 1
        made = batch_message(spec, batch, "plan")
        # As a worker checks it.
        message = BatchMessage.model_validate_json(made.model_dump_json(exclude=made.new_defaults()))
        assert message.model_dump() == made.model_dump()
        objects, lines = message.objects(), message.lines_by_address()
        assert objects.keys() == lines.keys()
        assert not found.keys() & objects.keys()
        found |= {address: (lines[address], size) for address, size in objects.items()}
        assert list(message.positions_by_address().values()) == list(
            range(plan.firsts[number], plan.firsts[number] + len(objects))
        )
    assert found == {digest(path): kept for path, kept in files.items()}
    assert [group.positions for group in plan.groups] == [range(len(files))]
    assert plan.snapshots[0].objects == len(files)


def messages(files: list[TreeEntry], action: Action, rules: int) -> list[BatchMessage]:
    """Return the messages of a push or a pull of *files*, as a worker reads them."""
    planner = FilePlanner(max_objects=10, max_bytes=MAX_BYTES, evenly=rules > 1)
    for file in files:
        path = f"./{file.path}".encode()
        planner.add(path, path if action is Action.PUSH else line_of(file), file.size)
    plan = planner.finish()
    stores = StoreRef(url="/a"), StoreRef(url="/b")
    spec = JobSpec.of(*stores, None, action=action, rules=rules)
    written = [batch_message(spec, plan.batch(number), "plan") for number in range(plan.batches)]
    texts = [made.model_dump_json(exclude=made.new_defaults()) for made in written]
    return [BatchMessage.model_validate_json(text) for text in texts]


paths_of_files = st.text(
    st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=30
)
entries = st.lists(
    st.builds(
        TreeEntry,
        st.just(False),
        st.integers(0, 0o7777),
        addresses,
        st.integers(0, 2 * MAX_BYTES),
        paths_of_files,
    ),
    max_size=40,
    unique_by=lambda file: file.path,
)


@given(entries, st.sampled_from([Action.PUSH, Action.PULL]))
def test_a_message_means_the_same_by_all_rules(files: list[TreeEntry], action: Action) -> None:
    found = []
    for rules in range(1, NEWEST_RULES + 1):
        sizes: dict[Address, int] = {}
        lines: dict[Address, bytes] = {}
        for message in messages(files, action, rules):
            assert bool(message.addresses) == (rules == 1)
            assert bool(message.checksums) == (rules > 1 and action is Action.PULL)
            sizes |= message.objects()
            lines |= message.lines_by_address()
        found.append((sizes, lines))
    assert found[0] == found[1]
    sizes, lines = found[0]
    assert sizes == {digest(f"./{file.path}".encode()): file.size for file in files}
    if action is Action.PULL:
        assert sorted(files_of(list(lines.values()), list(sizes.values()))) == sorted(files)


def test_newer_rules_make_shorter_messages() -> None:
    files = [TreeEntry(False, 0o644, digest(b"%d" % n), 9, f"data/{n:08}") for n in range(10)]
    for action, most in ((Action.PUSH, 0.6), (Action.PULL, 0.8)):
        old, new = (messages(files, action, rules)[0].model_dump_json() for rules in (1, NEWEST_RULES))
        assert len(new) < most * len(old)


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": ""},
        {"addresses": "", "lines": encode_lines([b"./a"])},
        {"addresses": "", "lines": encode_lines([b"./a", b"./b", b"./c"])},
        {"checksums": encode_addresses([digest(b"a"), digest(b"b")])},
        {"addresses": "", "checksums": encode_addresses([digest(b"a"), digest(b"b")])},
        {
            "addresses": "",
            "lines": encode_lines([b"./a\x00644", b"./b\x00644"]),
            "checksums": encode_addresses([digest(b"a")]),
        },
        {"addresses": "", "lines": encode_lines([b"./a\x00644", b"./b\x00644"]), "checksums": "../.."},
    ],
    ids="-".join,
)
def test_a_message_whose_parts_do_not_match_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        BatchMessage.model_validate(
            {
                "job_id": "job",
                "series": "plan",
                "number": 0,
                "source": {"url": "/a"},
                "destination": {"url": "/b"},
                "addresses": encode_addresses([digest(b"./a"), digest(b"./b")]),
                "sizes": [1, 2],
                "positions": [0],
                "action": "pull",
                **changes,
            }
        )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([9, MAX_BYTES, MAX_BYTES + 1])), max_size=60),
)
def test_files_that_repeat_a_large_one_share_its_batch(runs: list[tuple[int, int]]) -> None:
    """Each run is a file and as many repetitions, in which a link may be listed with a short length."""
    planner = FilePlanner(max_objects=10, max_bytes=MAX_BYTES)
    files, together = [], []
    for number, (repetitions, size) in enumerate(runs):
        paths = [b"./%d-%d" % (number, one) for one in range(repetitions + 1)]
        for one, path in enumerate(paths):
            planner.add(path, path, size if one < 2 else 9, repeats=one > 0)
        files += paths
        together += [set(paths)] if size > MAX_BYTES else []
    plan = planner.finish()

    batches = [plan.batch(number).lines for number in range(plan.batches)]
    assert sorted(line for lines in batches for line in lines) == sorted(files)
    assert sorted(map(sorted, together)) == sorted(sorted(lines) for lines in batches[: len(together)])
    assert all(sum(plan.batch(n).sizes) <= MAX_BYTES for n in range(len(together), plan.batches))


def test_many_repetitions_of_a_large_file_make_several_batches() -> None:
    planner = FilePlanner(max_objects=10, max_bytes=MAX_BYTES)
    for number in range(25):
        planner.add(b"./%d" % number, b"line", 2 * MAX_BYTES, repeats=number > 0)
    plan = planner.finish()

    assert [len(plan.batch(number).sizes) for number in range(plan.batches)] == [10, 10, 5]


@given(lines_of_files, st.data())
def test_every_file_is_in_one_batch_with_its_line(lines: dict[bytes, bytes], data: st.DataObject) -> None:
    files = {path: (line.replace(b"\n", b" "), data.draw(sizes)) for path, line in lines.items()}
    assert_holds(planned(files), files)


def test_a_plan_of_files_survives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = {b"./%d" % number: (b"F 644 - %d ./%d" % (number, number), 13 * number) for number in range(313)}

    plan_file.save("job", digest(b"key"), planned(files))
    loaded = plan_file.load("job", digest(b"key"))

    assert loaded is not None
    assert_holds(loaded, files)


def test_long_lines_make_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_planner, "MAX_LINE_BYTES", 100)
    files = {b"./%d" % number: (b"x" * 30, 1) for number in range(10)} | {b"./long": (b"y" * 500, 1)}

    plan = planned(files)

    assert_holds(plan, files)
    batches = [plan.batch(number).lines for number in range(plan.batches)]
    assert all(len(lines) == 1 or sum(map(len, lines)) <= 100 for lines in batches)


@pytest.mark.parametrize(
    "text",
    [
        "!",
        base64.b64encode(b"not compressed").decode(),
        base64.b64encode(zlib.compress(b"a\nb")[:-2]).decode(),
        base64.b64encode(zlib.compress(b"a\nb") + b"more").decode(),
        base64.b64encode(zlib.compress(bytes(MOST_LINE_BYTES + 1))).decode(),
        base64.b64encode(zlib.compress(b"\n" * MOST_OBJECTS)).decode(),
    ],
)
def test_lines_that_nobody_encoded_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="lines are"):
        decode_lines(text)


def test_a_batch_may_have_as_many_lines_as_objects() -> None:
    lines = [b"%d" % number for number in range(MOST_OBJECTS)]
    assert decode_lines(encode_lines(lines)) == lines


def test_lines_must_match_the_objects() -> None:
    plan = planned({b"./a": (b"one", 1), b"./b": (b"two", 2)})
    message = batch_message(JobSpec.of(StoreRef(url="/a"), StoreRef(url="/b"), None), plan.batch(0), "plan")

    with pytest.raises(ValueError, match="lines and sizes do not match"):
        BatchMessage.model_validate(message.model_dump() | {"lines": encode_lines([b"one"])})
