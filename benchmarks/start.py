"""
Where the time of a command goes that copies next to nothing: a flame graph of all its processes.

    python -m benchmarks.start [--runs N] [--write]

It runs a sync of ten files without a broker, N times, and prints what the processes of the run with the median time
did. With ``--write`` it draws that: how much of a core each process had, and above it its imports, each above the one
that asked for it, or its tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

from . import commands, data
from .flames import Lane, draw
from .plots import FOLDER
from .rounds import remove
from .start_recorder import Event

FILES: Final = 10
FILE_BYTES: Final = 4096

# Seconds between two looks at how long the processes have run. More often, looking would take a core.
SAMPLE_EVERY_S: Final = 0.004

# The children of a process, in the order in which it forks them.
CHILDREN: Final = {
    "the command": ("keeper",),
    "keeper": ("worker", "planner"),
    "worker": ("worker process 1", "worker process 2"),
}
SERVER: Final = "server"


class Samples:
    """How long processes had run, and when: by process, pairs of a time and a CPU time in nanoseconds."""

    def __init__(self) -> None:
        self.of: dict[int, list[tuple[int, int]]] = {}
        self.names: dict[int, str] = {}

    def look(self, since: int) -> None:
        """Note the CPU time of each process with an id from *since* on."""
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) >= since:
                with suppress(OSError, IndexError):
                    ran = sum(
                        int(Path(thread, "schedstat").read_text().split()[0])
                        for thread in os.scandir(f"/proc/{name}/task")
                    )
                    self.of.setdefault(int(name), []).append((time.monotonic_ns(), ran))
                    self.names[int(name)] = Path(f"/proc/{name}/comm").read_text().strip()


def record(source: str, snapshot: str, destination: str, events: Path) -> list[Lane]:
    """Run the command once; return its processes, in the order in which they began."""
    command = commands.ours_sync(snapshot, source, destination)
    arguments = [sys.executable, "-m", "benchmarks.start_recorder", str(events), *command.arguments[3:]]
    samples, began_ns = Samples(), time.monotonic_ns()
    process = subprocess.Popen(arguments, env=command.environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        samples.look(process.pid)
        time.sleep(SAMPLE_EVERY_S)
    ended_ns = time.monotonic_ns()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode} of: {' '.join(arguments)}")
    lines = (Event(*json.loads(line)) for line in events.read_text().splitlines())
    return lanes(process.pid, list(lines), samples.of, samples.names, began_ns, ended_ns)


def lanes(
    root: int,
    events: Sequence[Event],
    samples: Mapping[int, Sequence[tuple[int, int]]],
    names: Mapping[int, str],
    began_ns: int,
    ended_ns: int,
) -> list[Lane]:
    """Return the processes that *events* and *samples* tell of, in the order in which they began."""
    begins = {root: began_ns} | {event.pid: event.begin_ns for event in events if event.kind == "fork"}
    named = _named(root, events)
    for pid, name in names.items():
        # It is not forked by Python, so no event tells of it.
        if pid not in begins and name.endswith("-server"):
            begins[pid], named[pid] = samples[pid][0][0], SERVER

    def ms(at_ns: int) -> float:
        return round((at_ns - began_ns) / 1e6, 1)

    found = {
        pid: Lane(name, ms(begins[pid]), ms(samples[pid][-1][0] if samples.get(pid) else ended_ns))
        for pid, name in named.items()
    }
    found[root].end_ms = ms(ended_ns)
    for pid, lane in found.items():
        own = [event for event in events if event.pid == pid]
        lane.tasks = [(e.name, ms(e.begin_ns), ms(e.end_ns)) for e in own if e.kind == "task"]
        lane.imports = [
            (event.name, ms(event.begin_ns), ms(event.end_ns), depth)
            for event, depth in _depths(event for event in own if event.kind == "import")
        ]
        at = [(begins[pid], 0), *samples.get(pid, ())]
        # A child of a fork begins with no CPU time. That of a thread is gone when the thread has ended.
        lane.running = [
            (ms(one), ms(other), max(0.0, (now - before) / (other - one)))
            for (one, before), (other, now) in pairwise(at)
            if other > one
        ]
    return sorted(found.values(), key=lambda lane: lane.begin_ms)


def _named(root: int, events: Sequence[Event]) -> dict[int, str]:
    """Return the names of the processes that were forked, by their ids."""
    named = {root: "the command"}
    left = {name: iter(children) for name, children in CHILDREN.items()}
    for event in sorted(
        (event for event in events if event.kind == "fork"), key=lambda event: event.begin_ns
    ):
        if name := next(left.get(named.get(int(event.name), ""), iter(())), ""):
            named[event.pid] = name
    return named


def _depths(imports: Iterable[Event]) -> Iterable[tuple[Event, int]]:
    """Yield each of *imports* with the number of the others that it is within."""
    around: list[Event] = []
    for event in sorted(imports, key=lambda event: (event.begin_ns, -event.end_ns)):
        while around and around[-1].end_ns <= event.begin_ns:
            around.pop()
        yield event, len(around)
        around.append(event)


def in_words(found: Sequence[Lane]) -> list[str]:
    """Return a line for each process: when it lived, how long it ran, and what it did."""
    said = []
    for lane in found:
        outer = [(name, begin, end) for name, begin, end, depth in lane.imports if not depth]
        imports = sum(end - begin for _, begin, end in outer)
        did = [f"imports {imports:.0f} ms"] if imports >= 1 else []
        did += [f"{name} {begin:.0f}-{end:.0f} ms" for name, begin, end in lane.tasks]
        line = f"{lane.name}: {lane.begin_ms:.0f}-{lane.end_ms:.0f} ms, running {lane.cpu_ms:.0f} ms"
        said.append(", ".join([line, *did]))
    return said


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.split("\n")[1])
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--write", action="store_true", help="write the graph into docs/benchmarks/start.svg")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        snapshot = data.pushed_store(folder, folder / "store", files=FILES, size_bytes=FILE_BYTES)
        runs = []
        for number in range(chosen.runs):
            to = folder / "to"
            runs.append(
                record(f"file://{folder}/store", snapshot, f"file://{to}", folder / f"events{number}")
            )
            remove(to)
    median = sorted(runs, key=lambda lanes: lanes[0].end_ms)[len(runs) // 2]
    print("\n".join(in_words(median)))
    if chosen.write:
        draw(median, FOLDER / "start.svg")


if __name__ == "__main__":
    main()
