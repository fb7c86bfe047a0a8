"""
Run a command and measure it: wall time, CPU time, and the memory of all of its processes.

*all of its processes*: the embedded fleet leaves the session and the process
group of the command. A process belongs to the command when its parent or its
session's leader does, or when the mark is in the environment it was started with.
*all of the CPU time*: this process adopts the command's orphans, so that the
time of those that nobody else waited for is counted as well.

Memory and the adoption of orphans need Linux.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

MARK: Final = "BENCHMARK_MARK"
SAMPLE_EVERY_S: Final = 0.05
PATIENCE_S: Final = 5.0
_TOOK: Final = "seconds of work:"

_PR_SET_CHILD_SUBREAPER: Final = 36
_KIB: Final = 1024


class CommandFailed(Exception):
    """A command did not do its work; the message shows the end of what it said."""


class Memory(NamedTuple):
    """Bytes in memory. *pss* counts a page that n processes share as 1/n in each, *rss* as a whole one in each."""

    pss: int
    rss: int


@dataclass(frozen=True)
class Command:
    """
    A command line and what it needs in its environment.

    With a *marker* the work is done when the marker is in the output, whatever
    the exit code; without one, when the exit code is 0.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    marker: str = ""


@dataclass(frozen=True)
class Run:
    """What one run of a command took. Memory is 0 where it was not asked for."""

    seconds: float
    cpu_seconds: float
    user_seconds: float = 0.0
    """The part of the CPU time that was spent outside the kernel."""
    pss_bytes: int = 0
    rss_bytes: int = 0
    largest_bytes: int = 0
    """The highest resident memory that any one process ever had, as the kernel kept it."""
    holders: tuple[tuple[str, int], ...] = ()
    """Each process at the moment of the highest PSS, with its PSS in bytes."""
    said: str = ""
    """What it wrote to standard output and standard error."""

    @property
    def work_seconds(self) -> float:
        """The seconds that the command printed with `say_seconds`, or else all that it took."""
        _, printed, seconds = self.said.rpartition(_TOOK)
        return float(seconds.split()[0]) if printed else self.seconds

    @property
    def system_seconds(self) -> float:
        """The part of the CPU time that the kernel spent."""
        return self.cpu_seconds - self.user_seconds


def say_seconds(work: Callable[[], None]) -> None:
    """Do *work*, and print how long it took. That leaves out the start of Python and its imports."""
    started = time.monotonic()
    work()
    print(_TOOK, f"{time.monotonic() - started:.6f}", flush=True)


def run(command: Command, *, memory: bool = False) -> Run:
    """Run *command* to its end. Raises `CommandFailed`; however this ends, no process of it is left."""
    environment = {**command.environment, MARK: uuid.uuid4().hex}
    with tempfile.TemporaryFile() as output:
        own = _children()
        _adopt_orphans(True)
        (user, system), started = _cpu_of_children(), time.monotonic()
        process = subprocess.Popen(
            command.arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        tree = ProcessTree(process.pid, environment[MARK])
        try:
            if memory:
                with PeakMemory(tree) as peak:
                    process.wait()
            else:
                peak = None
                process.wait()
            seconds = time.monotonic() - started
        finally:
            _end(process, tree, own)
            _adopt_orphans(False)
        user, system = (now - before for now, before in zip(_cpu_of_children(), (user, system), strict=True))
        output.seek(0)
        said = output.read().decode(errors="replace")
    done = command.marker in said if command.marker else process.returncode == 0
    if not done:
        shown = " ".join(command.arguments)
        raise CommandFailed(f"exit code {process.returncode} of: {shown}\n{said[-2000:]}")
    if peak is None:
        return Run(seconds, user + system, user, said=said)
    highest = peak.highest
    return Run(seconds, user + system, user, highest.pss, highest.rss, peak.largest, peak.holders, said)


class _Seen(NamedTuple):
    parent: int
    session: int
    started: str


class ProcessTree:
    """The processes of one command: *root*, what came from it, and what carries *mark* in its environment."""

    def __init__(self, root: int, mark: str) -> None:
        self._root = root
        self._mark = f"{MARK}={mark}".encode()
        self._members: dict[int, str] = {}
        self._strangers: dict[int, str] = {}

    def members(self) -> set[int]:
        """Return the ids of those that live now. One that belonged once belongs until it ends."""
        seen = _processes()
        self._members = {p: s for p, s in self._members.items() if p in seen and seen[p].started == s}
        for process, found in seen.items():
            if process in self._members or self._strangers.get(process) == found.started:
                continue
            if process == self._root or self._is_marked(process):
                self._members[process] = found.started
            else:
                self._strangers[process] = found.started
        grown = True
        while grown:
            grown = False
            for process, found in seen.items():
                if process not in self._members and (
                    found.parent in self._members or found.session in self._members
                ):
                    self._members[process] = found.started
                    grown = True
        return set(self._members)

    def _is_marked(self, process: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{process}/environ").read_bytes()
        except OSError:
            return False


class PeakMemory:
    """The highest memory of a process tree within a ``with`` block, sampled in a thread."""

    def __init__(self, tree: ProcessTree, *, every_s: float = SAMPLE_EVERY_S) -> None:
        self.highest = Memory(0, 0)
        self.largest = 0
        self.holders: tuple[tuple[str, int], ...] = ()
        self._tree = tree
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._every_s):
            members = self._tree.members()
            parts = {process: memory_of(process) for process in members}
            # A process that ends meanwhile has no peak any more, but it had what was just seen.
            held = (part.rss for part in parts.values())
            self.largest = max([self.largest, *held, *map(peak_of, members)])
            now = total(parts.values())
            if now.pss > self.highest.pss:
                self.holders = tuple((_name(process), part.pss) for process, part in sorted(parts.items()))
            self.highest = Memory(max(now.pss, self.highest.pss), max(now.rss, self.highest.rss))


def memory_of(process: int) -> Memory:
    """Return what *process* has in memory now; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0, 0)
    sizes = {name: int(value.split()[0]) * _KIB for name, _, value in (line.partition(":") for line in lines)}
    return Memory(sizes.get("Pss", 0), sizes.get("Rss", 0))


def anonymous_of(process: int) -> int:
    """Return the bytes of memory that are *process*'s own work: its PSS without files that are mapped."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith("Pss_Anon:")), 0)


def peak_of(process: int) -> int:
    """Return the most that *process* ever had resident, in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith("VmHWM:")), 0)


def cpu_of(processes: Iterable[int]) -> float:
    """Return the CPU seconds of *processes* so far, and of the children that they have waited for."""
    ticks = 0
    for process in processes:
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Return the CPU time that the whole machine has spent on anything."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq = ticks[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total(parts: Iterable[Memory]) -> Memory:
    """Return the sums."""
    known = list(parts)
    return Memory(sum(part.pss for part in known), sum(part.rss for part in known))


def available_memory() -> int:
    """Return how many bytes new work can have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * _KIB
    return 0


def filesystem(folder: Path) -> str:
    """Return the type of the file system that *folder* is on, such as ``ext4``; "unknown" where Linux does not say."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    place, found, longest = folder.resolve(), "unknown", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = Path(before.split()[4])
        if place.is_relative_to(mounted) and len(mounted.parts) >= longest:
            found, longest = after.split()[0], len(mounted.parts)
    return found


def _processes() -> dict[int, _Seen]:
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                found[int(name)] = _Seen(int(fields[1]), int(fields[3]), fields[19])
    return found


def _name(process: int) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join([os.path.basename(words[0]), *words[1:4]]).strip()
    except OSError:
        return "ended"


def _end(process: subprocess.Popen[bytes], tree: ProcessTree, own: set[int]) -> None:
    """
    Make sure that no process of the command is left, and that the CPU time of all of them is counted.

    *own* are the children that this process had before; any further one is an adopted orphan.
    """
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while members := tree.members() | (_children() - own):
        if time.monotonic() > deadline:
            for member in members:
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
        for member in members:
            with suppress(ChildProcessError):
                os.waitpid(member, os.WNOHANG)
        time.sleep(0.01)


def _children() -> set[int]:
    return {process for process, found in _processes().items() if found.parent == os.getpid()}


def _adopt_orphans(adopt: bool) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def _cpu_of_children() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime, used.ru_stime
