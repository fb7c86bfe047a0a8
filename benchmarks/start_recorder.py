"""
Run the command line of snapferry, and write down what it imports, which processes it forks and which tasks they run.

    python -m benchmarks.start_recorder FILE ARGUMENT ...

To FILE each process appends a line of JSON for each event: `Event`. Times are those of the clock that all processes of
the machine share, so the lines of several processes fit together.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final, NamedTuple

# Shorter imports are not seen in a drawing, and writing takes time.
_SHORTEST_NS: Final = 100_000


class Event(NamedTuple):
    """Something that process *pid* did, in nanoseconds of `time.monotonic_ns`."""

    kind: str
    """``import``, ``task``, or ``fork``: *name* is the module, the task, or the id of the parent process."""
    pid: int
    name: str
    begin_ns: int
    end_ns: int


class Recorder:
    """Writes the events of this process and of those that it forks."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._task_began_ns = 0

    def install(self) -> None:
        """Begin to write down what this process does."""
        self._watch_imports()
        parent = os.getpid()

        def forked() -> None:
            nonlocal parent
            self._write("fork", str(parent), now := time.monotonic_ns(), now)
            if "celery.signals" in sys.modules and not self._task_began_ns:
                self._watch_tasks()
            parent = os.getpid()

        os.register_at_fork(after_in_child=forked)

    def _write(self, kind: str, name: str, begin_ns: int, end_ns: int) -> None:
        event = Event(kind, os.getpid(), name, begin_ns, end_ns)
        # One call for a line, so that lines of several processes do not mix.
        os.write(self._file, json.dumps(event).encode() + b"\n")

    def _watch_imports(self) -> None:
        # What every import statement calls for a module that is not there yet.
        bootstrap: Any = sys.modules["_frozen_importlib"]
        find_and_load = bootstrap._find_and_load  # noqa: SLF001 - there is no public place to see an import end

        def watched(name: str, *rest: Any) -> Any:
            begin = time.monotonic_ns()
            try:
                return find_and_load(name, *rest)
            finally:
                end = time.monotonic_ns()
                if end - begin >= _SHORTEST_NS:
                    self._write("import", name, begin, end)

        bootstrap._find_and_load = watched  # noqa: SLF001

    def _watch_tasks(self) -> None:
        signals: Any = sys.modules["celery.signals"]
        self._task_began_ns = time.monotonic_ns()

        def began(**_: Any) -> None:
            self._task_began_ns = time.monotonic_ns()

        def ended(sender: Any = None, **_: Any) -> None:
            name = str(getattr(sender, "name", "")).rpartition(".")[2]
            self._write("task", name, self._task_began_ns, time.monotonic_ns())

        signals.task_prerun.connect(began, weak=False)
        signals.task_postrun.connect(ended, weak=False)


def main() -> None:
    path, *arguments = sys.argv[1:]
    Recorder(path).install()
    sys.argv = ["snapferry", *arguments]
    from snapferry.orchestrator.cli import console

    console()


if __name__ == "__main__":
    main()
