"""The parts of the benchmark that need no server: ratios, goals, the table, and the memory of a process tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import direct, floor, report
from benchmarks.cases import CASES, Setting, distance, many
from benchmarks.cases.buckets import empty
from benchmarks.cases.requests import counted
from benchmarks.cases.shared import reckon
from benchmarks.data import (
    Shared,
    address_of,
    pushed_store,
    shared_store,
    sparse_objects,
    sparse_store,
    sparse_tree,
)
from benchmarks.fleet import Job, efficiency, read_job
from benchmarks.measure import (
    MARK,
    Command,
    CommandFailed,
    Memory,
    ProcessTree,
    Run,
    cpu_of,
    filesystem,
    memory_of,
    peak_of,
    run,
    total,
)
from benchmarks.one_sided import objects_of
from benchmarks.plots import Point
from benchmarks.report import Goal, Result, limited_by, timed
from benchmarks.rounds import Different, Round, holds_all_of, measure_rounds, same_folders, same_trees
from benchmarks.servers import S3Server, count_requests
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import snapshot_id
from snapferry.stores.manifest.parse import parse
from snapferry.stores.opening import open_store

MIB = 1024 * 1024

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc"
)

# A child in a session of its own that holds 40 MiB, says so, and ends with its input.
CHILD = "import sys; held = bytearray(b'x') * (40 << 20); print('up', flush=True); sys.stdin.read()"
PARENT = (
    "import subprocess, sys;"
    f"subprocess.run([sys.executable, '-c', {CHILD!r}], start_new_session=True, env={{}}, check=True)"
)


def test_the_ratio_is_taken_pair_by_pair_and_the_median_is_judged():
    result = Result("w", "s", (4.0, 30.0, 6.0), {"snapdir": (2.0, 10.0, 1.0)}, Goal(ratio=3.0))

    assert result.ratios("snapdir") == [2.0, 3.0, 6.0]
    assert result.met is True
    assert Result("w", "s", result.ours, result.peers, Goal(ratio=2.9)).met is False


def test_a_goal_is_judged_against_the_peer_that_it_names():
    peers = {"snapdir": (1.0,), "rclone": (4.0,)}

    assert Result("w", "s", (3.0,), peers, Goal(ratio=1.0, to="rclone")).met is True
    assert Result("w", "s", (3.0,), peers, Goal(ratio=1.0)).met is False


def test_a_goal_in_units_is_judged_by_the_worst_run():
    assert Result("w", "MB", (200.0, 349.0), goal=Goal(value=350)).met is True
    assert Result("w", "MB", (200.0, 350.0), goal=Goal(value=350)).met is False
    assert Result("w", "", (0.95, 0.9), goal=Goal(least=0.9)).met is True
    assert Result("w", "", (0.95, 0.89), goal=Goal(least=0.9)).met is False
    assert Result("w", "MB", (200.0,)).met is None


def test_how_far_from_the_floor_is_taken_round_by_round():
    assert Result("w", "s", (4.0, 9.0, 5.0), floor=(2.0, 3.0, 5.0)).above_floor == 2.0
    assert Result("w", "s", (4.0,)).above_floor is None


def test_the_table_shows_medians_ratios_and_goals():
    results = [
        Result(
            "files", "s", (2.0, 4.0, 9.0), {"snapdir": (1.0, 1.0, 3.0)}, Goal(ratio=4), "CPU", (1.0, 1.0, 1.0)
        ),
        Result("huge", "MB", (400.0,), {"snapdir": (4000.0,)}, Goal(value=350), "2 processes"),
        Result("start", "s", (1.0,), {"snapdir": (2.0,)}),
        Result("several", "s", (1.0,), {"snapdir": (2.0,), "rclone": (0.5,)}, Goal(ratio=1, to="rclone")),
        Result("alone", "", (0.93,), goal=Goal(least=0.9)),
    ]

    lines = report.table(results).splitlines()

    assert lines[2] == (
        "| files | 4.00 s | snapdir 1.00 s | snapdir 3.00 x [2.00-4.00] | ≤ 4 x snapdir"
        " | yes; the floor is 1.00 x snapdir | 4.00 x | CPU |"
    )
    assert lines[3] == (
        "| huge | 400 MB | snapdir 4,000 MB | snapdir 0.10 x | < 350 MB | **no** | - | 2 processes |"
    )
    assert lines[4] == "| start | 1.00 s | snapdir 2.00 s | snapdir 0.50 x | - | - | - |  |"
    assert lines[5] == (
        "| several | 1.00 s | snapdir 2.00 s<br>rclone 0.50 s | snapdir 0.50 x<br>rclone 2.00 x"
        " | ≤ 1 x rclone | **no** | - |  |"
    )
    assert lines[6] == "| alone | 0.93 | - | - | ≥ 0.9 | yes | - |  |"
    assert len(lines) == 7


def test_everything_is_in_the_document():
    result = Result(
        "w", "s", (4.0,), {"snapdir": (2.0,)}, Goal(ratio=3.0), floor=(1.0,), cpu={"ours": ((1.0, 0.5),)}
    )

    (line,) = json.loads(json.dumps(report.document([result], "a machine")))["results"]

    assert line["ours"] == [4.0]
    assert line["peers"] == {"snapdir": [2.0]}
    assert line["cpu"] == {"ours": [[1.0, 0.5]]}
    assert line["ratios"] == {"snapdir": [2.0]}
    assert line["above_floor"] == 4.0
    assert line["met"] is True


@pytest.mark.parametrize(
    ("busy", "others", "word"),
    [
        (0.9, 0.0, "CPU"),
        (0.4, 0.5, "other work on the machine"),
        (0.5, 0.1, "one core"),
        (0.3, 0.3, "waiting"),
    ],
)
def test_what_limited_a_run_is_read_from_the_cores(monkeypatch, busy, others, word):
    monkeypatch.setattr(report, "cores", lambda: 2)
    one = Round({"ours": Run(1.0, 2.0 * busy), "snapdir": Run(1.0, 0.1)}, others)

    assert limited_by([one]).startswith(f"{word}: ")


def test_the_line_of_a_time_has_all_sides_and_what_an_object_cost():
    runs = {
        "ours": Run(4.0, 2.0, 1.5),
        "snapdir": Run(2.0, 1.0, 1.0),
        "rclone": Run(8.0, 4.0, 3.0),
        "floor": Run(1.0, 0.5, 0.25),
    }

    found = timed("w", [Round(runs, 0.0)], Goal(ratio=2.0), objects=1000)

    assert found.ours == (4.0,)
    assert found.peers == {"snapdir": (2.0,), "rclone": (8.0,)}
    assert found.floor == (1.0,)
    assert found.cpu["ours"] == ((1.5, 0.5),)
    assert "with 2.0 x snapdir's, 0.5 x rclone's CPU time" in found.limited_by
    assert "user + system: snapferry 1,500 + 500 µs, floor 250 + 250 µs" in found.limited_by


def test_the_page_keeps_what_is_around_the_table(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Above\n{report.BEGIN}\nold\n{report.END}\nBelow\n")

    report.write_page([Result("start", "s", (1.0,))], "a machine", page, tmp_path)

    text = page.read_text()
    assert text.startswith(f"# Above\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nBelow\n")
    assert "| start |" in text
    assert "old" not in text


def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("nothing\n")

    with pytest.raises(ValueError, match="no place"):
        report.write_page([], "a machine", page)

    assert page.read_text() == "nothing\n"


def test_the_page_in_docs_has_a_place_for_the_table():
    text = report.PAGE.read_text(encoding="utf-8")

    assert report.BEGIN in text
    assert report.END in text


def test_different_destinations_are_noticed(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for store in (one, other):
        (store / ".manifests").mkdir(parents=True)
        (store / ".manifests" / "m").write_text("same")
    same_folders(one, other)
    (other / "more").write_text("x")

    with pytest.raises(Different, match="more"):
        same_folders(one, other)


def test_two_empty_destinations_are_no_success(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()

    with pytest.raises(Different, match="no manifest"):
        same_folders(one, other)


def test_one_store_holds_all_of_another_or_differs(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for store in (one, other):
        (store / ".manifests").mkdir(parents=True)
        (store / ".manifests" / "m").write_text("same")
    (one / "more").write_text("x")
    holds_all_of(one, other)

    with pytest.raises(Different, match="more"):
        holds_all_of(other, one)
    (other / "more").write_text("y")
    with pytest.raises(Different, match="more"):
        holds_all_of(one, other)
    (other / "more").unlink()
    (other / ".manifests" / "m").unlink()
    with pytest.raises(Different, match="no manifest"):
        holds_all_of(one, other)


def test_trees_are_the_same_in_their_bytes_and_modes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for tree in (one, other):
        (tree / "folder").mkdir(parents=True)
        (tree / "folder" / "file").write_text("same")
    same_trees(one, other)
    (other / "folder" / "file").chmod(0o600)

    with pytest.raises(Different, match="folder/file has mode"):
        same_trees(one, other)
    (other / "folder" / "file").write_text("not the same")
    with pytest.raises(Different, match="diff -r"):
        same_trees(one, other)


def test_two_empty_trees_are_no_success(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()

    with pytest.raises(Different, match="nothing in"):
        same_trees(one, other)


def test_what_ran_is_told_in_turn():
    told = []
    nothing = Command([sys.executable, "-c", ""])

    rounds = measure_rounds(
        2,
        {"ours": nothing, "snapdir": nothing, "rclone": nothing},
        clean=lambda: told.append("clean"),
        check=lambda: told.append("check"),
        ran=told.append,
    )

    assert told == [
        "clean", "ours", "snapdir", "rclone", "check", "clean", "ours", "snapdir", "rclone"
    ]  # fmt: skip
    assert [list(one.runs) for one in rounds] == [["ours", "snapdir", "rclone"]] * 2


def test_the_peers_time_for_all_snapshots_is_the_first_and_the_median_of_the_others():
    measured = Run(seconds=20.0, cpu_seconds=10.0)

    # A second of the 20 is the process's own; 9 for the first, 2 for each other one.
    found = reckon(measured, [9.0, 2.0, 1.0, 5.0, 2.0], snapshots=101)

    assert found.seconds == 1.0 + 9.0 + 100 * 2.0
    assert found.cpu_seconds == found.seconds / 2


def test_shared_snapshots_are_a_store_like_any_other(tmp_path):
    shape = Shared(snapshots=3, common=20, own=2)
    ids = shared_store(tmp_path, shape)

    store = open_store(str(tmp_path))
    listed = store.list_manifests()
    assert sorted(listed, key=lambda id_: listed[id_].modified) == ids
    found = set()
    for id_ in ids:
        text = store.get_manifest(id_)
        assert snapshot_id(text) == digest(text) == id_
        files = [entry for entry in parse(text) if entry.type == "F"]
        assert len(files) == 22
        assert [entry.path for entry in parse(text) if entry.type == "D"] == ["./", "./common/", "./own/"]
        found |= {entry.checksum for entry in files}
    assert len(found) == shape.objects == 26
    assert all(len(store.get_object(address)) == shape.size_bytes for address in found)


def test_requests_are_counted_in_what_rclone_logs():
    log = """\
2026/11/24 00:45:42 NOTICE: Memory root '': Starting s3 server on [http://127.0.0.1:57963/]
2026/11/24 00:45:42 DEBUG : serve s3: CREATE BUCKET: bucket
2026/11/24 00:45:42 DEBUG : serve s3: CREATE OBJECT: bucket a/b c
2026/11/24 00:45:42 DEBUG : bucket: Added virtual directory entry vAddDir: "a"
2026/11/24 00:45:42 DEBUG : serve s3: LIST BUCKET
2026/11/24 00:45:42 DEBUG : serve s3: bucketname: bucket prefix: prefix:"" page: {Marker:a HasMarker:true MaxKeys:1000}
2026/11/24 00:45:42 DEBUG : serve s3: Listed 1 keys from 2 directories (truncated=false)
2026/11/24 00:45:42 DEBUG : serve s3: HEAD OBJECT bucket a/b c
2026/11/24 00:45:42 DEBUG : serve s3: HEAD OBJECT bucket A B
2026/11/24 00:45:42 DEBUG : serve s3: GET OBJECT Bucket: bucket Object: a/b
"""

    assert count_requests(log.splitlines()) == {
        "CREATE BUCKET": 1,
        "PutObject": 1,
        "ListObjectsV2": 1,
        "HeadObject": 2,
        "GetObject": 1,
    }


def test_the_floor_copies_what_the_manifest_names(tmp_path):
    source, copied = tmp_path / "source", tmp_path / "copied"
    pushed_store(tmp_path, source, files=30, size_bytes=64)

    command = Command(
        [sys.executable, "-m", "benchmarks.floor", "files", str(source), str(copied), "--durable"],
        dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    run(command)

    same_folders(source, copied)


def test_a_part_of_the_floor_that_fails_is_noticed(tmp_path):
    source = tmp_path / "source"
    pushed_store(tmp_path, source, files=3, size_bytes=64)
    next(path for path in (source / ".objects").rglob("*") if path.is_file()).unlink()

    with pytest.raises(CommandFailed, match="a part of the floor failed"):
        run(
            Command(
                [sys.executable, "-m", "benchmarks.floor", "files", str(source), str(tmp_path / "copied")],
                dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        )


def test_the_floor_of_a_push_and_a_pull_makes_the_same_objects_and_tree(tmp_path):
    source, tree = tmp_path / "source", tmp_path / "tree"
    pushed_store(tmp_path, source, files=30, size_bytes=64)
    (tmp_path / "objects").write_text(objects_of(source))

    def do(*arguments):
        run(
            Command(
                [sys.executable, "-m", "benchmarks.one_sided", *map(str, arguments)],
                dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        )

    objects = tmp_path / "objects"
    do("pull", objects, source, tree)
    do("push", tree, tmp_path / "pushed")
    with S3Server(":memory:", tmp_path / "server.log") as server:
        empty(server, ["bucket"])
        bucket = f"{server.endpoint}/bucket"
        do("push", tree, bucket)
        do("verify", objects, bucket)
        do("pull", objects, bucket, tmp_path / "again")

    (tmp_path / "pushed" / ".manifests").symlink_to(source / ".manifests")
    same_folders(source, tmp_path / "pushed")
    same_trees(tree, tmp_path / "again")
    with pytest.raises(CommandFailed, match="a part of the floor failed"):
        do("verify", objects, tmp_path / "nowhere")


def test_a_sparse_object_takes_no_room_and_hashes_to_its_address(tmp_path):
    snapshot, address = sparse_store(tmp_path, tmp_path / "store", size_bytes=50_000_000)

    store = open_store(str(tmp_path / "store"))
    with store.read_manifest(snapshot) as manifest:
        assert manifest.objects() == {address: 50_000_000}
    (file,) = (path for path in (tmp_path / "store" / ".objects").rglob("*") if path.is_file())
    assert file.stat().st_size == 50_000_000
    assert file.stat().st_blocks * 512 < 5_000_000
    assert floor.digest_of(file, "", "") == address


def test_a_sparse_tree_and_a_store_of_its_files_have_the_same_objects(tmp_path):
    sparse_tree(tmp_path / "tree", files=3, size_bytes=2_000_000)
    snapshot, addresses = sparse_objects(tmp_path, tmp_path / "store", files=3, size_bytes=2_000_000)

    assert [address_of(file) for file in sorted((tmp_path / "tree").iterdir())] == addresses
    store = open_store(str(tmp_path / "store"))
    with store.read_manifest(snapshot) as manifest:
        assert manifest.objects() == dict.fromkeys(addresses, 2_000_000)
    assert all(digest(store.get_object(address)) == address for address in addresses)
    assert not (tmp_path / "sparse").exists()


def test_the_copying_alone_copies_all_batches(tmp_path):
    source, copied = tmp_path / "source", tmp_path / "copied"
    snapshot = pushed_store(tmp_path, source, files=25, size_bytes=64)
    copied.mkdir()
    with open_store(str(source)).read_manifest(snapshot) as manifest:
        objects = dict(manifest.objects())

    work = direct.batches(objects, 10)
    seconds, number = direct.copy(work, f"file://{source}", f"file://{copied}", processes=2, jobs=1)

    assert [len(batch) for batch in work] == [10, 10, 5]
    assert [address for batch in work for address in batch] == sorted(objects)
    assert number == 25
    assert seconds > 0
    assert open_store(str(copied)).objects_needed(objects) == []


def test_efficiency_is_the_share_of_what_as_many_would_do_alone():
    assert efficiency({1: 10.0, 2: 20.0, 4: 36.0, 8: 60.0}) == {1: 1.0, 2: 1.0, 4: 0.9, 8: 0.75}
    assert efficiency({2: 10.0, 4: 20.0}) == {2: 1.0, 4: 1.0}


def test_a_job_is_timed_by_its_own_record(monkeypatch):
    monkeypatch.setattr("benchmarks.fleet.cores", lambda: 2)
    record = {
        "started": "2026-01-30T12:00:00.500+00:00",
        "ended": "2026-01-30T12:00:03.000+00:00",
        "objects": {"copied": 40},
    }

    job = read_job(record, fleet=2.0, busy=4.0, elapsed=5.0)

    assert job == Job(2.5, 40, fleet_share=0.2, busy_share=0.4, cpu_seconds=2.0)
    verified = read_job({**record, "objects": {"copied": 0, "present": 7}}, 2.0, 4.0, 5.0, "present")
    assert verified.objects == 7


def test_throughput_of_workers_is_judged_and_says_what_limited_it(tmp_path):
    jobs = {
        1: Job(10.0, 100, fleet_share=0.1, busy_share=0.3, cpu_seconds=2.0),
        8: Job(1.5625, 100, fleet_share=0.5, busy_share=0.95, cpu_seconds=2.0),
    }

    *each, efficient = distance.scaled(jobs, {1: "few", 8: "many"}, Setting(tmp_path, tmp_path))

    assert [one.ours for one in each] == [(10.0,), (64.0,)]
    assert efficient.ours == (0.8,)
    assert efficient.met is False
    assert each[0].limited_by.startswith(
        "waiting for answers: the machine was 30% busy, 10% with the fleet; few"
    )
    assert efficient.limited_by.startswith("CPU of this machine")
    lines = [(point.line, point.x, point.y) for one in each for point in one.points]
    assert lines == [("snapferry", 1, 10.0), ("linear", 1, 10.0), ("snapferry", 8, 64.0), ("linear", 8, 80.0)]


def test_requests_are_totalled_and_named():
    asked = {
        "ours": [Counter({"GetObject": 20_000, "PutObject": 20_002, "ListObjectsV2": 41})],
        "snapdir": [Counter({"HeadObject": 20_000})],
    }

    found = counted("w", asked, Goal(value=41_000))

    assert found.ours == (40_043.0,)
    assert found.peers == {"snapdir": (20_000.0,)}
    assert found.met is True
    assert found.goal is not None
    assert found.goal.words(found.unit) == "< 41,000 requests"
    assert found.limited_by == (
        "snapferry: 20,002 PutObject, 20,000 GetObject, 41 ListObjectsV2; snapdir: 20,000 HeadObject"
    )


def test_jobs_of_millions_of_objects_are_judged(tmp_path):
    def job(objects: int, folder: Path) -> many.Job:
        assert folder.is_dir()
        return many.Job(
            objects, objects / 200_000, objects / 50_000, 900_000_000, 150_000_000, 1_000_000, "CPU"
        )

    found = many.case(job)(Setting(tmp_path, tmp_path))

    assert [one.met for one in found] == [True, False, True, True, True, None]
    assert found[0].ours == (50.0,)
    assert found[2].ours == (10.0,)
    assert [(point.x, point.y) for point in found[1].points] == [(1_000_000, 20.0), (10_000_000, 200.0)]


def test_in_small_no_goal_is_judged_and_each_side_runs_once(tmp_path):
    full, small = Setting(tmp_path, tmp_path), Setting(tmp_path, tmp_path, scale=20)

    assert full.goal(Goal(ratio=1.0)) == Goal(ratio=1.0)
    assert small.goal(Goal(ratio=1.0)) is None
    assert (full.times(5), small.times(5)) == (5, 1)
    assert Setting(tmp_path, tmp_path, rounds=2).times(5) == 2


def test_results_are_read_back_from_a_document():
    full = Result(
        "work", "s", (1.0, 2.0), {"snapdir": (2.0, 4.0)}, Goal(ratio=0.7), "CPU", (0.5, 0.5),
        {"ours": ((0.1, 0.2), (0.3, 0.4))}, (("worker", 5),), (Point("time", "ours", 1.0, 2.0),),
    )  # fmt: skip
    results = [full, Result("other", "MB", (3.0,))]

    assert report.read_document(json.loads(json.dumps(report.document(results, "here")))) == results


def test_no_two_cases_have_the_same_name():
    assert len({case.name for case in CASES}) == len(CASES)


def test_memory_is_summed():
    assert Memory(4, 6) == total([Memory(1, 2), Memory(3, 4)])
    assert Memory(0, 0) == total([])


@needs_proc
def test_a_tree_includes_a_child_that_left_the_session_and_the_environment():
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        members = ProcessTree(process.pid, "none").members()
        held = total(memory_of(member) for member in members)
        largest = max(peak_of(member) for member in members)
        spent = cpu_of(members)
        assert process.stdin is not None
        process.stdin.close()

    assert len(members) == 2
    assert held.pss >= 40 * MIB
    assert held.rss >= held.pss
    assert 40 * MIB <= largest <= held.rss
    assert spent > 0


@needs_proc
def test_a_process_is_known_by_its_mark_alone():
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={MARK: "here"},
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        unrelated = 2**22 + 1
        marked = ProcessTree(unrelated, "here").members()
        others = ProcessTree(unrelated, "elsewhere").members()
        assert process.stdin is not None
        process.stdin.close()

    assert {process.pid} == marked
    assert set() == others


@needs_proc
@pytest.mark.parametrize("after", ["", "import time; time.sleep(0.6)"], ids=["still running", "ended before"])
def test_a_run_counts_the_processor_time_of_orphans_and_leaves_no_process(after):
    orphan = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}], process_group=0, env={{}})"

    found = run(Command([sys.executable, "-c", f"{parent}\n{after}"]))

    assert found.cpu_seconds >= 0.2
    assert 0 < found.user_seconds <= found.cpu_seconds


def test_a_marker_decides_whatever_the_exit_code():
    said_and_died = "import os; print('it-is-done', flush=True); os.kill(os.getpid(), 11)"

    run(Command([sys.executable, "-c", said_and_died], marker="it-is-done"))
    with pytest.raises(CommandFailed, match="exit code 0"):
        run(Command([sys.executable, "-c", "print('something')"], marker="it-is-done"))
    with pytest.raises(CommandFailed, match="exit code 3"):
        run(Command([sys.executable, "-c", "raise SystemExit(3)"]))


@needs_proc
def test_the_file_system_is_that_of_the_nearest_mount():
    assert filesystem(Path("/proc/self")) == "proc"
