"""The embedded default: no broker, nothing installed first, nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapferry.orchestrator.embedded.keeper import exit_status
from snapferry.stores.opening import open_store
from tests.sample import assert_published_means_complete, make_store, random_files, tree

from .forge import Forge
from .processes import (
    MARK,
    PATIENCE_S,
    REPOSITORY,
    Started,
    children_of,
    command_of,
    environment,
    marked,
    snapferry,
    started,
    until,
)
from .raw_store import write_snapshots


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A folder for temporary files, so that what is left behind can be seen."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class LargeStore:
    """A store of one snapshot, large enough to be met half copied. Tests read it, and change nothing in it."""

    root: Path
    id: str
    tree: dict[str, bytes]


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> LargeStore:
    root = tmp_path_factory.mktemp("large")
    (snapshot,) = write_snapshots(root, [random_files(2500)])
    return LargeStore(root, snapshot, tree(root))


def sync(source: Path, destination: Path, snapshot: str, *options: str) -> list[str]:
    return ["sync", "--from", str(source), "--to", f"file://{destination}", "--id", snapshot, *options]


def running_sync(
    source: Path, destination: Path, snapshot: str, temporary: Path
) -> AbstractContextManager[Started]:
    command = [sys.executable, "-m", "snapferry", *sync(source, destination, snapshot)]
    return started(*command, env={"TMPDIR": str(temporary)})


def wait_until_copying(destination: Path) -> None:
    until((destination / ".objects").is_dir, "the first object is written")


def worker_of(running: Started) -> int:
    """Return the id of the fleet's worker: after the server, the first process that the keeper starts."""
    _, _, *others = running.family()
    return min(process for process in others if "unixsocket:" not in command_of(process))


def assert_gone(running: Started, temporary: Path) -> None:
    until(lambda: not running.family(), "every process of the fleet is gone")
    assert list(temporary.iterdir()) == []


def test_a_snapshot_is_copied_and_the_store_is_the_same_byte_for_byte(
    tmp_path: Path, temporary: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(300))

    ended = snapferry(*sync(tmp_path / "a", tmp_path / "b", snapshot), env={"TMPDIR": str(temporary)})

    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert f"snapshot {snapshot} is published: 301 objects, 301 copied" in ended.out
    assert marked(ended.mark) == []
    assert list(temporary.iterdir()) == []


def test_the_bundled_server_serves_where_none_is_on_the_path(tmp_path: Path, temporary: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))

    env = {"PATH": "/nowhere", "TMPDIR": str(temporary)}
    ended = snapferry(*sync(tmp_path / "a", tmp_path / "b", snapshot, "--json"), env=env)

    assert ended.code == 0, ended.err
    assert ended.document["objects"]["copied"] == 21


def test_a_long_temporary_path_does_not_break_the_unix_socket(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    long = tmp_path / ("x" * 120)
    long.mkdir()

    ended = snapferry(*sync(tmp_path / "a", tmp_path / "b", snapshot), env={"TMPDIR": str(long)})

    assert ended.code == 0, ended.err


def test_a_second_run_copies_nothing_and_says_so(forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(50))
    forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot))

    again = forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot, "--json"))

    assert again.code == 0
    assert again.document["objects"] | {"to_copy": 0} == {
        "total": 51,
        "copied": 0,
        "present": 51,
        "failed": 0,
        "healed": 0,
        "to_copy": 0,
    }


def test_a_published_snapshot_with_a_lost_object_is_healed(forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(50))
    forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot))
    lost = next((tmp_path / "b" / ".objects").rglob("?" * 55))
    lost.unlink()

    again = forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot, "--json"))

    assert again.document["objects"]["copied"] == 1
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_json_is_the_only_thing_on_standard_output_and_has_every_field(forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(10, size=100))

    ended = forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot, "--json"))

    document = ended.document
    assert document["state"] == "done"
    assert document["snapshot"] == snapshot
    assert document["objects"]["total"] == 11
    assert document["bytes"] == {"total": 1000, "copied": 1000, "to_copy": 0}
    assert document["errors"] == []
    assert document["seconds"] > 0
    assert ended.err == ""


def test_relative_paths_are_made_absolute_before_anything_is_recorded(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    work = tmp_path / "two words"
    work.mkdir()

    ended = snapferry("sync", "../a", "./new/b:c/", "--id", snapshot, "--receipt", "receipt.json", cwd=work)

    assert ended.code == 0, ended.err
    assert tree(work / "new" / "b:c") == tree(tmp_path / "a")
    receipt = json.loads((work / "receipt.json").read_text())
    stores = [receipt["source"], receipt["destination"]]
    assert f"file://{os.path.realpath(tmp_path)}/a" in json.dumps(stores[0])
    assert f"file://{os.path.realpath(work)}/new/b:c" in json.dumps(stores[1])


def test_a_dry_run_says_what_would_happen_and_writes_nothing(forge: Forge, tmp_path: Path) -> None:
    files = random_files(10, size=100)
    snapshot = make_store(tmp_path / "a", files)
    half = open_store(str(tmp_path / "b"))
    for data in list(files.values())[:4]:
        from snapferry.stores.hashing import digest

        half.put_object(digest(data), data)
    before = tree(tmp_path / "b")

    ended = forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot, "--dryrun"))

    assert ended.code == 0
    assert "would copy 7 of 11 objects, 600 B of 1.0 kB; 4 already present. Nothing was written." in ended.out
    assert tree(tmp_path / "b") == before
    assert not (tmp_path / "c").exists()


def test_a_dry_run_towards_a_store_that_does_not_exist_does_not_make_it(forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))

    ended = forge.run(sync(tmp_path / "a", tmp_path / "new", snapshot, "--dryrun"))

    assert "would copy 4 of 4 objects" in ended.out
    assert not (tmp_path / "new").exists()


def test_quiet_prints_nothing(forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))

    ended = forge.run(sync(tmp_path / "a", tmp_path / "b", snapshot, "-q"))

    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_on_a_terminal_a_bar_shows_the_progress_and_never_passes_100_percent(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(600))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "snapferry", *sync(tmp_path / "a", tmp_path / "b", snapshot)],
        env=environment({"TERM": "xterm", "COLUMNS": "120"}),
        cwd=REPOSITORY,
        stderr=slave,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # the terminal is closed when its last writer ends
        pass
    os.close(master)

    assert process.wait(PATIENCE_S) == 0
    text = shown.decode(errors="replace")
    shares = [int(word) for word in _before(text, "%")]
    assert shares, text
    assert max(shares) == shares[-1] == 100
    assert shares == sorted(shares)
    assert "601/601 objects" in text


def _before(text: str, mark: str) -> list[str]:
    return [part.split()[-1] for part in text.split(mark)[:-1] if part.split() and part.split()[-1].isdigit()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sync_stops_cleanly_and_the_next_one_resumes(
    forge: Forge, large: LargeStore, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    with running_sync(large.root, tmp_path / "b", large.id, temporary) as running:
        wait_until_copying(tmp_path / "b")

        running.process.send_signal(number)

        assert running.process.wait(PATIENCE_S) == 130
        assert running.process.stderr is not None
        assert b"Run the same command again to resume" in running.process.stderr.read()
        assert_gone(running, temporary)
    assert not (tmp_path / "b" / ".manifests").exists()
    assert [path for path in tree(tmp_path / "b") if ".tmp-" in path] == []

    again = forge.run(sync(large.root, tmp_path / "b", large.id, "--json"))

    assert again.document["objects"]["present"] > 0
    assert large.tree == tree(tmp_path / "b")


def test_a_killed_sync_takes_its_fleet_with_it(
    forge: Forge, large: LargeStore, tmp_path: Path, temporary: Path
) -> None:
    with running_sync(large.root, tmp_path / "b", large.id, temporary) as running:
        wait_until_copying(tmp_path / "b")

        running.process.kill()
        running.process.wait(PATIENCE_S)

        assert_gone(running, temporary)
    assert_published_means_complete(open_store(str(tmp_path / "b")))

    assert forge.run(sync(large.root, tmp_path / "b", large.id)).code == 0
    leftovers = [path for path in tree(tmp_path / "b") if ".tmp-" in path]
    assert {p: d for p, d in tree(tmp_path / "b").items() if p not in leftovers} == large.tree


def test_a_killed_worker_child_costs_its_batch_again_and_nothing_else(
    large: LargeStore, tmp_path: Path, temporary: Path
) -> None:
    with running_sync(large.root, tmp_path / "b", large.id, temporary) as running:
        wait_until_copying(tmp_path / "b")
        os.kill(children_of(worker_of(running))[0], signal.SIGKILL)

        assert running.process.wait(PATIENCE_S) == 0, running.process.stderr and running.process.stderr.read()
    kept = {path: data for path, data in tree(tmp_path / "b").items() if ".tmp-" not in path}
    assert kept == large.tree


# A sync that reads the status of its job when the fleet tells of a step, and otherwise once a month.
WAITS_FOR_STEPS = """
import sys
from snapferry.orchestrator.cli import follow, main
from snapferry.workers.ledger import Ledger

readings, real = [], Ledger.status

def status(*arguments):
    readings.append(arguments)
    return real(*arguments)

Ledger.status, follow.EMBEDDED_POLL_S = status, 30 * 86400
try:
    main()
finally:
    print("readings", len(readings))
"""


def test_a_fleet_tells_when_its_job_went_on_and_the_command_reads_the_status_then(tmp_path: Path) -> None:
    (snapshot,) = write_snapshots(tmp_path / "a", [random_files(10)])
    command = [sys.executable, "-c", WAITS_FOR_STEPS, *sync(tmp_path / "a", tmp_path / "b", snapshot)]

    ended = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )

    # One at the beginning, one when the job is planned, one when it has ended.
    assert int(ended.stdout.rpartition("readings ")[2]) <= 3
    assert tree(tmp_path / "b") == tree(tmp_path / "a")


# A sync to whose command each step of its job seems to be late, and which shows a line at each reading of the status.
SEEMS_LATE = """
from snapferry.orchestrator.cli import follow, main
from snapferry.orchestrator.reporting import measures
from snapferry.orchestrator.reporting.progress import views

follow.idle_s = lambda status: 60.0
follow.LACKS_S = follow.EMBEDDED_POLL_S = measures.IDLE_S = views.LINE_EVERY_S = 0.0
main()
"""


def test_a_command_never_says_that_its_own_fleet_does_not_run(tmp_path: Path) -> None:
    """A slow fleet runs all the same, and the command is told when a part of it ends."""
    (snapshot,) = write_snapshots(tmp_path / "a", [random_files(10)])
    command = [sys.executable, "-c", SEEMS_LATE, *sync(tmp_path / "a", tmp_path / "b", snapshot)]

    ended = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )

    assert ended.stderr.count("snapferry: ") > 1
    assert "nothing can run" not in ended.stderr
    assert "is one running" not in ended.stderr


def test_a_fleet_that_ends_wakes_a_command_that_waits_for_a_step(
    large: LargeStore, tmp_path: Path, temporary: Path
) -> None:
    command = [sys.executable, "-c", WAITS_FOR_STEPS, *sync(large.root, tmp_path / "b", large.id)]
    with started(*command, env={"TMPDIR": str(temporary)}) as running:
        wait_until_copying(tmp_path / "b")
        server = next(process for process in running.family() if "unixsocket:" in command_of(process))
        os.kill(server, signal.SIGKILL)

        assert running.process.wait(PATIENCE_S) == 1
        assert_gone(running, temporary)


# The worker of this fleet gets no time to join the group that the keeper kills.
ENDS_WHILE_A_WORKER_STARTS = """
import os, sys, time
from pathlib import Path
from snapferry.orchestrator.embedded import EmbeddedFleet
from snapferry.workers.settings.environment import Settings

began, real = Path(sys.argv[1]), os.setpgid

def join(process, group):
    if process == 0:
        began.write_text(str(os.getpid()))
        time.sleep(10_000)
    real(process, group)

os.setpgid = join
with EmbeddedFleet(Settings(), processes=1):
    while not (began.exists() and began.read_text()):
        time.sleep(0.01)
"""


def test_a_fleet_that_ends_while_its_worker_starts_leaves_no_worker(tmp_path: Path) -> None:
    began = tmp_path / "began"

    subprocess.run([sys.executable, "-c", ENDS_WHILE_A_WORKER_STARTS, began], check=True, timeout=PATIENCE_S)

    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)


@pytest.mark.parametrize("part", ["server", "worker", "keeper"])
def test_a_dead_part_of_the_fleet_ends_the_command_with_a_reason(
    large: LargeStore, tmp_path: Path, temporary: Path, part: str
) -> None:
    with running_sync(large.root, tmp_path / "b", large.id, temporary) as running:
        wait_until_copying(tmp_path / "b")
        owner, keeper, *others = running.family()
        assert owner == running.process.pid
        server = next(process for process in others if "unixsocket:" in command_of(process))
        os.kill({"server": server, "worker": worker_of(running), "keeper": keeper}[part], signal.SIGKILL)

        assert running.process.wait(PATIENCE_S) == 1
        assert running.process.stderr is not None
        said = running.process.stderr.read().decode()
        assert (
            "the keeper of the embedded fleet was killed" if part == "keeper" else f"embedded {part} ended"
        ) in said
        assert "Run the same command again to resume" in said
        assert_gone(running, temporary)
    assert_published_means_complete(open_store(str(tmp_path / "b")))


def test_split_pools_keep_objects_and_manifests_apart(forge: Forge, tmp_path: Path) -> None:
    make_store(tmp_path / "whole", random_files(30))
    snapshot = make_store(tmp_path / "a", random_files(30))
    (tmp_path / "pool").mkdir()
    (tmp_path / "a" / ".objects").rename(tmp_path / "pool" / ".objects")

    ended = forge.run(
        [
            *sync(tmp_path / "a", tmp_path / "b", snapshot),
            "--from-objects",
            str(tmp_path / "pool"),
            "--to-objects",
            str(tmp_path / "pool2"),
        ]
    )

    assert ended.code == 0, ended.err
    assert {p.name for p in (tmp_path / "b").iterdir()} == {".manifests"}
    assert tree(tmp_path / "pool") == tree(tmp_path / "pool2")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_one_object_in_flight_means_one_worker_process(tmp_path: Path, temporary: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1500))
    command = [
        sys.executable,
        "-m",
        "snapferry",
        *sync(tmp_path / "a", tmp_path / "b", snapshot, "-j", "1"),
    ]
    with started(*command, env={"TMPDIR": str(temporary)}) as running:
        wait_until_copying(tmp_path / "b")
        processes = children_of(worker_of(running))
        assert running.process.wait(PATIENCE_S) == 0
    assert len(processes) == 1


def test_the_list_of_snapshots_is_sorted_and_ignores_strangers(forge: Forge, tmp_path: Path) -> None:
    snapshots = sorted(make_store(tmp_path / "a", random_files(3, seed=seed)) for seed in range(4))
    (tmp_path / "a" / ".manifests" / "README").write_text("not a manifest")

    ended = forge.run(["ls", str(tmp_path / "a")])

    assert ended.out.split() == snapshots


def test_the_mark_is_unique_to_each_command() -> None:
    assert environment()[MARK] != environment()[MARK]


# A sync in which the process that takes the first steps of its job meets what the first argument names.
PLANNER_FAILS = """
import os, signal, sys
from snapferry.orchestrator.embedded.parts import Roles
from snapferry.orchestrator.cli import main

how, real = sys.argv.pop(1), Roles.take_first_steps

def take_first_steps(*arguments):
    if how == "fails after its steps":
        real(*arguments)
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError("no memory")

Roles.take_first_steps = take_first_steps
main()
"""


@pytest.mark.parametrize("how", ["fails", "is killed", "fails after its steps"])
def test_whatever_happens_to_the_process_that_plans_a_job_the_worker_takes_its_steps(
    how: str, tmp_path: Path, temporary: Path
) -> None:
    (snapshot,) = write_snapshots(tmp_path / "a", [random_files(10)])
    command = [sys.executable, "-c", PLANNER_FAILS, how, *sync(tmp_path / "a", tmp_path / "b", snapshot)]

    with started(*command, env={"TMPDIR": str(temporary)}) as running:
        assert running.process.wait(PATIENCE_S) == 0, running.process.stderr and running.process.stderr.read()
        assert_gone(running, temporary)

    assert tree(tmp_path / "b") == tree(tmp_path / "a")


# A sync whose worker gets ready only when somebody has written to the pipe that the first argument names.
WORKER_STARTS_LATE = """
import sys
from pathlib import Path
from snapferry.orchestrator.cli import main
from snapferry.orchestrator.embedded.parts import Roles

gate, real = Path(sys.argv.pop(1)), Roles.work

def work(*arguments):
    gate.read_bytes()
    return real(*arguments)

Roles.work = work
main()
"""


def test_a_job_is_planned_before_the_worker_is_ready(tmp_path: Path) -> None:
    (snapshot,) = write_snapshots(tmp_path / "a", [random_files(10)])
    os.mkfifo(gate := tmp_path / "gate")
    arguments = sync(tmp_path / "a", tmp_path / "b", snapshot, "--verbose")

    with started(sys.executable, "-c", WORKER_STARTS_LATE, str(gate), *arguments) as running:
        assert running.process.stderr is not None
        assert any(b"plan_job" in line for line in running.process.stderr)
        gate.write_bytes(b"now")
        rest = running.process.stderr.read()
        assert running.process.wait(PATIENCE_S) == 0, rest

    assert tree(tmp_path / "b") == tree(tmp_path / "a")


def test_a_part_that_somebody_else_has_waited_for_has_ended_too() -> None:
    """`subprocess` waits for a process that ends before its object is dropped."""
    process = subprocess.Popen(["true"])
    process.wait()
    with subprocess.Popen(["sleep", "60"]) as runs:
        assert exit_status(runs.pid) is None
        assert exit_status(process.pid) == 0
        runs.kill()
