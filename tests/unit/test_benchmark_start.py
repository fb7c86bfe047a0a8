"""The flame graph of a start."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from benchmarks.commands import ROOT, environment
from benchmarks.flames import draw
from benchmarks.start import in_words, lanes
from benchmarks.start_recorder import Event

MS = 1_000_000
COMMAND, KEEPER, WORKER, CHILD, OTHER, SERVED, PLANNER = 10, 11, 12, 13, 14, 15, 16

EVENTS = [
    Event("import", COMMAND, "click.types", 12 * MS, 14 * MS),
    Event("import", COMMAND, "click", 11 * MS, 15 * MS),
    Event("import", COMMAND, "snapferry.orchestrator.cli", 10 * MS, 20 * MS),
    Event("import", COMMAND, "redis", 20 * MS, 30 * MS),
    Event("fork", KEEPER, str(COMMAND), 31 * MS, 31 * MS),
    Event("fork", WORKER, str(KEEPER), 33 * MS, 33 * MS),
    Event("fork", CHILD, str(WORKER), 40 * MS, 40 * MS),
    Event("fork", PLANNER, str(KEEPER), 41 * MS, 41 * MS),
    Event("task", CHILD, "plan_job", 42 * MS, 47 * MS),
]
SAMPLES = {
    COMMAND: [(20 * MS, 18 * MS), (30 * MS, 28 * MS), (50 * MS, 27 * MS)],
    WORKER: [(37 * MS, 2 * MS)],
    CHILD: [(48 * MS, 6 * MS)],
    OTHER: [(40 * MS, 5 * MS)],
    SERVED: [(34 * MS, 0), (44 * MS, 1 * MS)],
}
NAMES = {COMMAND: "python", WORKER: "python", OTHER: "python", SERVED: "redis-server"}


def test_the_processes_of_a_command_are_told_by_their_forks_and_the_server_by_its_name():
    found = lanes(COMMAND, EVENTS, SAMPLES, NAMES, 0, 51 * MS)
    assert [(lane.name, lane.begin_ms, lane.end_ms) for lane in found] == [
        ("the command", 0, 51),
        ("keeper", 31, 51),
        ("worker", 33, 37),
        ("server", 34, 44),
        ("worker process 1", 40, 48),
        ("planner", 41, 51),
    ]


def test_an_import_has_the_depth_of_those_that_asked_for_it():
    command = lanes(COMMAND, EVENTS, SAMPLES, NAMES, 0, 51 * MS)[0]
    assert [(name, depth) for name, _, _, depth in command.imports] == [
        ("snapferry.orchestrator.cli", 0), ("click", 1), ("click.types", 2), ("redis", 0)
    ]  # fmt: skip


def test_a_process_had_as_much_of_a_core_as_its_cpu_time_grew():
    command = lanes(COMMAND, EVENTS, SAMPLES, NAMES, 0, 51 * MS)[0]
    # In the last span a thread ended, and its CPU time was gone.
    assert command.running == [(0, 20, 0.9), (20, 30, 1.0), (30, 50, 0.0)]
    assert command.cpu_ms == 28


def test_a_line_for_each_process_says_what_it_did():
    assert in_words(lanes(COMMAND, EVENTS, SAMPLES, NAMES, 0, 51 * MS)) == [
        "the command: 0-51 ms, running 28 ms, imports 20 ms",
        "keeper: 31-51 ms, running 0 ms",
        "worker: 33-37 ms, running 2 ms",
        "server: 34-44 ms, running 1 ms",
        "worker process 1: 40-48 ms, running 6 ms, plan_job 42-47 ms",
        "planner: 41-51 ms, running 0 ms",
    ]


def test_the_graph_names_processes_tasks_and_long_imports(tmp_path):
    pytest.importorskip("matplotlib", reason="the plots need matplotlib: .ci/setup bench")
    draw(lanes(COMMAND, EVENTS, SAMPLES, NAMES, 0, 51 * MS), tmp_path / "start.svg")
    texts = {text.text for text in ET.parse(tmp_path / "start.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {"the command", "server", "worker process 1", "plan_job", "orchestrator.cli", "redis"} <= texts


def test_a_command_runs_as_ever_while_its_imports_are_written_down(tmp_path):
    events = tmp_path / "events"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.start_recorder", str(events), "--version"],
        env=environment({}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("snapferry ")
    found = [Event(*json.loads(line)) for line in events.read_text().splitlines()]
    assert {event.kind for event in found} == {"import"}
    assert len({event.pid for event in found}) == 1
    assert any(event.name == "snapferry.orchestrator.cli" for event in found)
    assert all(event.begin_ns < event.end_ns for event in found)
