"""The parts of the chaos runs that need no fleet: schedules, recovery, tables."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snapferry.stores.opening import open_store
from snapferry.workers.ledger import JobStatus, State
from tests.chaos.faults import FAULTS, NeverPossible, NotPossible
from tests.chaos.oracle.leftovers import is_temporary
from tests.chaos.oracle.progress import Progress
from tests.chaos.oracle.published import manifests, object_path, unpublished
from tests.chaos.proxy import Trouble
from tests.chaos.recovery import Moves, recovered_s
from tests.chaos.report import BEGIN, END, FAULTS_OF_A_RUN, PAGE, judgement, table
from tests.chaos.rounds import Done, _do
from tests.chaos.schedule import (
    ACTIONS,
    CYCLE,
    FAILOVER,
    LONG_S,
    SHORTENED_S,
    WITH_SENTINELS,
    PlannedFault,
    rounds,
)
from tests.sample import fill, random_files

_FIELDS: dict[str, Any] = {
    **dict.fromkeys(JobStatus.__dataclass_fields__, 0),
    "job_id": "job",
    "state": State.COPYING,
    "objects_total": 10,
    "bytes_total": 100,
    "batches_total": 2,
    "workers": (),
    "running": (),
}
STATUS = JobStatus(**_FIELDS)


@pytest.mark.parametrize("short", [False, True])
def test_a_seed_gives_the_same_jobs_and_faults_every_time(short: bool) -> None:
    first, again, other = (list(islice(rounds(seed, short=short), 20)) for seed in (7, 7, 8))

    assert first == again
    assert first != other


def test_a_run_of_half_an_hour_has_every_kind_of_fault() -> None:
    # Rounds take a minute and a half. A tenth of the faults has nothing to act on.
    for seed in range(5):
        faults = [fault for planned in islice(rounds(seed), 20) for fault in planned.faults]

        assert {fault.kind for fault in faults} >= FAULTS.keys() - {"S3: down for minutes"}
        assert len(faults) >= 1.3 * FAULTS_OF_A_RUN


def test_a_share_of_the_rounds_has_sentinels_and_faults_of_their_kind_alone() -> None:
    for seed in range(5):
        planned = list(islice(rounds(seed), 3 * CYCLE))
        assert sum(one.sentinels for one in planned) == 3 * WITH_SENTINELS
        for one in planned:
            kinds = {fault.kind for fault in one.faults}
            assert (FAILOVER in kinds) == one.sentinels
            assert all(FAULTS[kind].sentinels in (None, one.sentinels) for kind in kinds)
    for kind in ("sentinel killed and started", "Redis failed over"):
        assert {one.sentinels for one in islice(rounds(1, kinds=[kind]), 2 * CYCLE)} == {kind.startswith("s")}


def test_rounds_are_of_all_actions_and_every_second_one_costs_only_time() -> None:
    for planned in islice(rounds(3), 20):
        assert {job.action for job in planned.jobs} == {*ACTIONS}
        assert sum(FAULTS[fault.kind].lasts_s[1] > LONG_S for fault in planned.faults) <= 1
        assert list(planned.faults) == sorted(planned.faults, key=lambda fault: (fault.at_s, fault.kind))
        if planned.number % 2 == 0:
            assert not any(FAULTS[fault.kind].fails for fault in planned.faults)


def test_a_short_run_has_no_fault_that_takes_long() -> None:
    for planned in islice(rounds(3, short=True), 20):
        assert all(fault.lasts_s <= SHORTENED_S and not FAULTS[fault.kind].slow for fault in planned.faults)


def test_a_run_can_be_of_one_kind_of_faults() -> None:
    for kind in ("worker killed", "disk full"):
        kinds = {fault.kind for planned in islice(rounds(1, kinds=[kind]), 3) for fault in planned.faults}

        assert kinds == {kind}


def test_faults_draw_only_from_their_own_seed() -> None:
    """Names and lasting times are all that is shared: the register has no fault twice, and no family is empty."""
    assert len(FAULTS) >= 50
    assert {fault.family for fault in FAULTS.values()} == {
        "processes", "redis", "s3", "objects", "messages", "operators", "machine",
    }  # fmt: skip


def moves(seen_at: float, *moved_at: float, ended_at: float | None = None) -> Moves:
    return Moves(seen_at=seen_at, moved_at=list(moved_at), ended_at=ended_at)


@pytest.mark.parametrize(
    ("ended_at", "others", "jobs", "expected"),
    [
        (10.0, [], [moves(0, 5, 12)], 2),
        (10.0, [], [moves(0, 5, 12, 13), moves(0, 17)], 7),
        (10.0, [], [moves(0, 5, ended_at=13)], 3),
        (10.0, [], [moves(0, 5, ended_at=9)], None),
        (10.0, [], [moves(11, 12)], None),
        (10.0, [], [], None),
        # While another fault lasts, the clock stands still. One that ends later has not kept the jobs from moving.
        (10.0, [(8, 15)], [moves(0, 17)], 2),
        (10.0, [(12, 15)], [moves(0, 17)], 2),
        (10.0, [(8, 20)], [moves(0, 17)], 7),
        (10.0, [(1, 9)], [moves(0, 17)], 7),
    ],
)
def test_recovery_is_the_time_until_every_open_job_has_moved(
    ended_at: float, others: list[tuple[float, float]], jobs: list[Moves], expected: float | None
) -> None:
    assert recovered_s(ended_at, others, jobs) == expected


def test_moves_are_noted_where_the_status_changes() -> None:
    noted = Moves()
    for at, settled in enumerate([0, 0, 3, 3, 5]):
        noted.saw(replace(STATUS, objects_settled=settled), float(at), 0)
    noted.saw(replace(STATUS, state=State.DONE, objects_settled=10), 6.0, 0)
    noted.saw(replace(STATUS, state=State.DONE, objects_settled=10), 7.0, 0)

    assert (noted.seen_at, noted.moved_at, noted.ended_at) == (0.0, [2.0, 4.0, 6.0], 6.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objects_settled": 11}, "11 of 10 objects"),
        ({"bytes_settled": 101}, "101 of 100 bytes"),
        ({"objects_settled": 4}, "objects_settled went from 5 to 4"),
        ({"bytes_settled": 49}, "bytes_settled went from 50 to 49"),
        ({"batches_done": 0}, "batches_done went from 1 to 0"),
        ({"objects_settled": 7, "state": State.COMMITTING}, None),
    ],
)
def test_progress_that_is_not_true_is_found(changed: dict[str, Any], said: str | None) -> None:
    before = replace(STATUS, objects_settled=5, bytes_settled=50, batches_done=1)
    progress = Progress()
    assert list(progress.false(before, 0)) == []

    found = list(progress.false(replace(before, **changed), 0))

    assert [text.rpartition(": ")[2] for text in found] == ([said] if said else [])


def test_a_final_state_that_changes_is_found_unless_redis_has_forgotten() -> None:
    for epoch, expected in ((0, 1), (1, 0)):
        progress = Progress()
        done = replace(STATUS, state=State.DONE, objects_settled=10)
        assert list(progress.false(done, 0)) == []

        assert len(list(progress.false(replace(done, state=State.FAILED), epoch))) == expected


def test_a_snapshot_that_is_published_without_an_object_is_found(tmp_path: Path) -> None:
    fill(open_store(str(tmp_path)), random_files(5))
    ((snapshot, manifest),) = manifests(tmp_path).items()
    assert list(unpublished(tmp_path, set())) == []
    address = manifest.read_text().split()[2]
    damaged = object_path(tmp_path, address)
    whole = damaged.read_bytes()

    for damage in (
        lambda: damaged.write_bytes(b"wrong" + whole[5:]),
        damaged.unlink,
        lambda: damaged.symlink_to("/etc/hostname"),
    ):
        damage()
        assert [text.rpartition(" ")[2] for text in unpublished(tmp_path, set())] == [address[:12]]
        assert list(unpublished(tmp_path, {address})) == []
    manifest.write_bytes(b"torn")
    assert len(list(unpublished(tmp_path, {address}))) == 1
    assert snapshot


def test_temporary_files_are_recognised() -> None:
    assert is_temporary(".tmp-1f.2-33-abc-0")
    assert is_temporary(".snapferry-1f-33-0123456789ab-7.tmp")
    assert not is_temporary("0123")


def test_the_proxy_makes_the_trouble_of_all_that_lasts() -> None:
    trouble = Trouble(chance=random.Random(1))
    assert trouble.now() == ""
    with trouble.making("503", 1.0):
        assert trouble.now() == "503"
        with trouble.making("slow", 1.0), trouble.making("refused", 1.0):
            assert {trouble.now() for _ in range(100)} == {"503", "slow", "refused"}
            refused = trouble.refused
        assert (refused, trouble.refused) == (True, False)
    assert trouble.now() == ""


def test_the_table_names_what_was_not_tried() -> None:
    fault = {"round": 0, "lasted_s": 1.0, "jobs": {"done": 3, "failed": 1}}
    found = {
        "seed": 5, "minutes": 1.0, "rounds": 1, "jobs": {"done": 3, "failed": 1}, "settled_s": [4.0], "violations": [],
        "faults": [
            {**fault, "kind": "disk full", "possible": True, "recovered_s": 2.0},
            {**fault, "kind": "disk full", "possible": True, "recovered_s": 8.0},
            {**fault, "kind": "disk full", "possible": True, "recovered_s": None},
            {**fault, "kind": "mount away", "possible": False, "recovered_s": None},
        ],
    }  # fmt: skip
    text = table([found])

    assert "| disk full | 3 | 9 | 3 | 0 | 0 | 5 s, 8 s |" in text
    assert "| 5 | 1 | 1 | 4 | 3 | 1 | 5 s, 8 s | 4 s, 4 s | 0 |" in text
    not_tried = text.partition("Not tried in these runs: ")[2].rstrip(".\n").split(", ")
    assert "mount away" in not_tried
    assert "disk full" not in not_tried
    assert len(not_tried) == len(", ".join(FAULTS).split(", ")) - 1


def test_a_fault_that_is_not_possible_is_tried_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.rounds._AGAIN_S", 0.01)
    tries: list[str] = []

    def done_by(act: Callable[..., Iterator[str]]) -> Done:
        tries.clear()
        fault = replace(FAULTS["messages lost"], act=contextmanager(act))
        monkeypatch.setitem(FAULTS, fault.kind, fault)
        world: Any = SimpleNamespace(may_fail=False, may_forget=False)
        done = Done(PlannedFault(fault.kind, 0.0, 0.0, 1))
        _do(world, done, 0.0, threading.Event())
        return done

    def at_last(world: object, chance: random.Random) -> Iterator[str]:
        tries.append(str(chance.random()))
        if len(tries) < 3:
            raise NotPossible("nothing waits")
        yield "found"

    def never(world: object, chance: random.Random) -> Iterator[str]:
        tries.append("")
        if tries:
            raise NeverPossible("no mount")
        yield ""

    done = done_by(at_last)
    assert (done.possible, done.what, len(tries), len(set(tries))) == (True, "found", 3, 1)
    done = done_by(never)
    assert (done.possible, done.what, len(tries)) == (False, "no mount", 1)


@pytest.mark.parametrize(("recovered_s", "kinds", "broken"), [(2.0, 25, 0), (91.0, 25, 2), (2.0, 24, 1)])
def test_a_run_is_judged_by_what_a_run_of_half_an_hour_must_reach(
    recovered_s: float, kinds: int, broken: int
) -> None:
    fault = {"round": 0, "lasted_s": 1.0, "jobs": {}, "possible": True, "recovered_s": recovered_s}
    chosen = [*FAULTS][:kinds]
    found = {"minutes": 15.0, "violations": [], "faults": [{**fault, "kind": kind} for kind in chosen * 5]}

    assert sum(line.startswith("BROKEN") for line in judgement(found)) == broken


def test_the_page_has_a_place_for_the_table() -> None:
    page = PAGE.read_text()

    assert page.count(BEGIN) == page.count(END) == 1
