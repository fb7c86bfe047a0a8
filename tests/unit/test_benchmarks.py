"""The pure parts of the benchmark: ratios, goals, the table, and the memory of a process tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.cases import reckon
from benchmarks.data import Shared, shared_store
from benchmarks.measure import MARK, Command, CommandFailed, Memory, ProcessTree, Run, memory_of, run, total
from benchmarks.pairs import Different, Pair, holds_all_of, measure_pairs, same_folders
from benchmarks.report import Goal, Result
from benchmarks.servers import count_requests
from stores.hashing import digest
from stores.manifest import parse, snapshot_id
from stores.urls import open_store

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
    result = Result("w", "s", ours=(4.0, 30.0, 6.0), peer=(2.0, 10.0, 1.0), goal=Goal(ratio=3.0))

    assert result.ratios == [2.0, 3.0, 6.0]
    assert result.met is True
    assert Result("w", "s", result.ours, result.peer, Goal(ratio=2.9)).met is False


def test_a_goal_in_units_is_judged_by_the_worst_run():
    assert Result("w", "MB", (200.0, 349.0), (1.0, 1.0), Goal(value=350)).met is True
    assert Result("w", "MB", (200.0, 350.0), (1.0, 1.0), Goal(value=350)).met is False
    assert Result("w", "MB", (200.0,), (1.0,)).met is None


def test_the_table_shows_medians_ratios_and_goals():
    results = [
        Result("files", "s", (2.0, 4.0, 9.0), (1.0, 1.0, 3.0), Goal(ratio=4), "CPU"),
        Result("huge", "MB", (400.0,), (4000.0,), Goal(value=350), "2 processes"),
        Result("start", "s", (1.0,), (2.0,)),
    ]

    lines = report.table(results).splitlines()

    assert lines[2] == "| files | 4.00 s | 1.00 s | 3.00 x [2.00-4.00] | ≤ 4 x | yes | CPU |"
    assert lines[3] == "| huge | 400 MB | 4,000 MB | 0.10 x | < 350 MB | **no** | 2 processes |"
    assert lines[4] == "| start | 1.00 s | 2.00 s | 0.50 x | - | - |  |"
    assert len(lines) == 5


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
    pair = Pair(Run(1.0, 2.0 * busy), Run(1.0, 0.1), others)

    assert report.limited_by([pair]).startswith(f"{word}: ")


def test_the_page_keeps_what_is_around_the_table(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Above\n{report.BEGIN}\nold\n{report.END}\nBelow\n")

    report.write_page([Result("start", "s", (1.0,), (2.0,))], "a machine", page)

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


def test_what_ran_is_told_in_turn():
    told = []
    nothing = Command([sys.executable, "-c", ""])

    measure_pairs(2, nothing, nothing, ran=told.append)

    assert told == ["ours", "peer", "ours", "peer"]


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
        assert process.stdin is not None
        process.stdin.close()

    assert len(members) == 2
    assert held.pss >= 40 * MIB
    assert held.rss >= held.pss


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


def test_a_marker_decides_whatever_the_exit_code():
    said_and_died = "import os; print('it-is-done', flush=True); os.kill(os.getpid(), 11)"

    run(Command([sys.executable, "-c", said_and_died], marker="it-is-done"))
    with pytest.raises(CommandFailed, match="exit code 0"):
        run(Command([sys.executable, "-c", "print('something')"], marker="it-is-done"))
    with pytest.raises(CommandFailed, match="exit code 3"):
        run(Command([sys.executable, "-c", "raise SystemExit(3)"]))
