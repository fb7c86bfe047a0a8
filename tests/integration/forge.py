"""Command lines in processes that begin with everything imported: most of a short command's time is the importing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.json_documents import check_output

from .processes import REPOSITORY, Finished, environment

FORGE = """
import json, os, sys
import snapferry.orchestrator.jobs
import snapferry.orchestrator.planning.prices, snapferry.orchestrator.reporting.progress
from snapferry.orchestrator.cli import main
from snapferry.orchestrator.cli.commands import control, copy, dashboard, doctor, fleet, flower, inspect, limit
from snapferry.orchestrator.cli.commands import look, names, schedules, shell
from snapferry.orchestrator.cli.run import control, copy, dashboard, doctor, fleet, flower, inspect, limit, names
from snapferry.orchestrator.cli.run import shell
from snapferry.orchestrator.cli.run.scheduling import lists, notify, once
from snapferry.orchestrator.cli.run.look import cat, diff, ls, orphans, show, size
from snapferry.orchestrator.cli.commands.actions import heal, pull, push, verify
from snapferry.orchestrator.cli.run.actions import heal, pull, push, verify
from snapferry.orchestrator.embedded import share_imports
share_imports()
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in enumerate([os.devnull, request["out"], request["err"]]):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(request["env"])
        sys.argv[1:] = request["arguments"]
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forge:
    """Runs command lines, each in a process of its own that is forked from one that has imported everything."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._out, self._err = folder / "out", folder / "err"

    def run(self, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Finished:
        """Run a command line to its end, with *env* on top of the environment that `snapferry` gives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "arguments": arguments,
            "env": dict(env or {}),
            "out": str(self._out),
            "err": str(self._err),
        }
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
        except BaseException:
            # The answer to a command that was given up would be taken for that of the next one.
            self._process.kill()
            raise
        out = self._out.read_text()
        check_output(["snapferry", *arguments], code, out)
        return Finished(code, out, self._err.read_text(), "")


@contextmanager
def forging(folder: Path) -> Iterator[Forge]:
    """Run a forge that keeps what commands print in *folder*."""
    # Whatever the first test that needs it has set for itself.
    own = {name: value for name, value in environment().items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        [sys.executable, "-c", FORGE],
        env=own,
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Forge(process, folder)
