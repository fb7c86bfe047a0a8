"""The floor beside the goals: what the report makes of it, and the copy of one large object."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import commands, report
from benchmarks.cases.alone import job_alone
from benchmarks.data import sparse_store
from benchmarks.floor import digest_of
from benchmarks.measure import Command, CommandFailed, Run, run
from benchmarks.one_object import BUFFER_BYTES, RANGE_BYTES
from benchmarks.report import Goal, Result, largest_process, timed
from benchmarks.rounds import Round, Start, floor_of, measure_rounds, peers_in, start_of
from benchmarks.servers import BigServer
from snapferry.stores.address import object_key

PEERS = {"snapdir": (1.0, 1.0), "rclone": (2.0, 2.0)}


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal(ratio=3.0), "yes; the floor is 1.50 x snapdir"),
        (Goal(ratio=2.0), "**no**; the floor is 1.50 x snapdir"),
        (Goal(ratio=1.0), "**no**; the floor is 1.50 x snapdir, above the goal"),
        (Goal(ratio=1.0, to="rclone"), "**no**; the floor is 0.75 x rclone"),
        (Goal(value=4), "yes; the floor is 1.50 s"),
        (Goal(value=2), "**no**; the floor is 1.50 s"),
        (Goal(value=1), "**no**; the floor is 1.50 s, above the goal"),
    ],
)
def test_a_verdict_shows_the_floor_in_the_measure_of_the_goal(goal, verdict):
    result = Result("w", "s", (3.0, 3.0), PEERS, goal, floor=(1.0, 2.0))

    assert result.verdict(goal) == verdict


def test_a_whole_command_has_its_start_before_the_floor():
    goal = Goal(ratio=1.2)
    result = Result("w", "s", (3.0, 3.0), PEERS, goal, floor=(1.0, 1.0), start=(0.5, 0.5))

    assert result.verdict(goal) == "**no**; start and floor are 1.50 x snapdir, above the goal"


def test_without_a_floor_a_verdict_is_yes_or_no():
    assert Result("w", "s", (3.0, 3.0), PEERS, start=(1.0, 1.0)).verdict(Goal(ratio=3.0)) == "yes"
    assert Result("w", "", (0.8,), floor=(1.0,)).verdict(Goal(least=0.9)) == "**no**"


def test_several_goals_are_judged_one_by_one_and_met_together():
    both = Result("w", "s", (2.0, 2.0), PEERS, Goal(ratio=1.0, to="rclone"), further_goals=(Goal(ratio=1.0),))

    assert both.met is False
    row = report.table([both]).splitlines()[-1]
    assert "| ≤ 1 x rclone<br>≤ 1 x snapdir | yes<br>**no** |" in row
    assert report.read_document(json.loads(json.dumps(report.document([both], "here")))) == [both]


def test_documents_from_before_the_start_was_measured_are_read():
    (line,) = report.document([Result("w", "s", (1.0,))], "here")["results"]
    for name in ("further_goals", "start", "least"):
        del line[name]

    assert report.read_document({"results": [line]}) == [Result("w", "s", (1.0,))]


def test_start_and_floor_are_no_peers():
    runs = {"ours": Run(4.0, 2.0), "rclone": Run(2.0, 1.0), "floor": Run(1.0, 0.5), "start": Run(0.5, 0.1)}
    rounds = [Round(runs, 0.0)]

    found = timed("w", rounds, Goal(ratio=1.0, to="rclone"), further_goals=[Goal(value=5)])

    assert list(found.peers) == list(largest_process("w", rounds).peers) == ["rclone"]
    assert (found.floor, found.start) == ((1.0,), (0.5,))
    assert found.goals == (Goal(ratio=1.0, to="rclone"), Goal(value=5))


def test_starts_run_first_in_each_round_into_empty_places(tmp_path):
    told: list[str] = []
    nothing = Command([sys.executable, "-c", ""])

    def start(name: str) -> Start:
        made = tmp_path / name
        return Start(Command([sys.executable, "-c", f"import os; os.mkdir({str(made)!r})"]), made)

    rounds = measure_rounds(
        2,
        {"ours": nothing, "floor": nothing},
        ran=told.append,
        start=start("a"),
        small_job=start("b"),
    )

    assert told == ["ours", "floor"] * 2
    assert len(start_of(rounds)) == 2
    assert [list(one.runs) for one in rounds] == [["ours", "floor", "start", "small job"]] * 2
    assert peers_in(rounds) == []
    assert start_of(measure_rounds(1, {"ours": nothing})) == ()


def test_the_start_of_a_job_alone_is_a_small_job():
    def job(seconds: int) -> Run:
        times = {"started": "2026-01-01T00:00:00Z", "ended": f"2026-01-01T00:00:{seconds:02}Z"}
        return Run(60.0, 1.0, said=json.dumps(times))

    runs = {"ours": Run(9.0, 1.0), "snapdir": Run(8.0, 1.0), "floor": Run(3.0, 1.0)}
    found = job_alone("w", [Round(runs | {"fleet": job(6), "small job": job(2)}, 0.0)], Goal(ratio=0.5))

    assert (found.ours, found.start, found.floor) == ((6.0,), (2.0,), (3.0,))
    assert found.verdict(Goal(ratio=0.5)) == "**no**; start and floor are 0.62 x snapdir, above the goal"


def test_the_floor_is_timed_without_the_start_of_its_python():
    script = "import time; from benchmarks.measure import say_seconds; say_seconds(lambda: time.sleep(0.01))"
    command = Command([sys.executable, "-c", script], commands.environment({}))

    (one,) = rounds = measure_rounds(1, {"ours": command, "floor": command})

    (seconds,) = floor_of(rounds)
    assert 0.01 <= seconds < one.runs["floor"].seconds
    assert floor_of([Round({"ours": Run(1.0, 1.0), "floor": Run(2.0, 1.0)}, 0.0)]) == (2.0,)


def test_the_floor_copies_a_large_object_every_way(tmp_path):
    served = tmp_path / "served"
    # Neither whole ranges nor whole buffers.
    size = 2 * RANGE_BYTES + 3 * BUFFER_BYTES + 5
    _, address = sparse_store(tmp_path, served / "source", size_bytes=size)
    key = object_key(address)
    for bucket in ("uploaded", "copied"):
        (served / bucket).mkdir()
    file = tmp_path / "to" / "file"
    with BigServer(served, tmp_path / "server.log") as server:
        url = server.endpoint
        for source, destination in [
            (f"{served}/source/{key}", f"{url}/uploaded/{key}"),
            (f"{url}/uploaded/{key}", f"{url}/copied/{key}"),
            (f"{url}/copied/{key}", str(file)),
        ]:
            run(commands.large_floor(source, destination))

        assert digest_of(None, url, f"/uploaded/{key}") == address
        assert digest_of(None, url, f"/copied/{key}") == address
        assert digest_of(file, "", "") == address
        with pytest.raises(CommandFailed, match="404"):
            run(commands.large_floor(f"{url}/source/none", f"{url}/copied/none"))
        with pytest.raises(CommandFailed, match="FileExistsError"):
            run(commands.large_floor(f"{url}/copied/{key}", str(file)))
