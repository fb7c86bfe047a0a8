"""A command without a broker on a machine that starts no further process, or whose server or planner fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.sample import make_store, random_files, tree

from .processes import PATIENCE_S, program, started, until

# The keeper cannot start a part of the fleet. The first fork is the owner's, the second that of the worker.
NO_PROCESS = """
import errno, itertools, os
forks, fork, refused = itertools.count(1), os.fork, {refused}

def no_process():
    if next(forks) == refused:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = no_process
"""

# The keeper fails for a reason that nobody foresaw.
KEEPER_FAILS = """
import snapferry.orchestrator.embedded.keeper as keeper

def fail(*arguments):
    raise ValueError("of the settings")

keeper.Roles = fail
"""

# The first process that plans the job meets {error}. Nobody looks for jobs that nobody drives.
FIRST_STEPS_FAIL = """
import os
from snapferry.orchestrator import tasks
from snapferry.orchestrator.driving import reconcile
from snapferry.orchestrator.embedded import keeper
from snapferry.stores.errors import ManifestSyntaxError, StoreUnavailable
real = tasks.drive_job

def drive_job(*arguments):
    with open({drives!r}, "ab", 0) as drives:
        drives.write(b".")
        if drives.tell() == 1:
            raise {error}
    return real(*arguments)

tasks.drive_job, tasks.RETRY_BASE_S, keeper._WATCH_S, reconcile.ROUND_S = drive_job, 0, 10_000, 10_000
"""

# A server that accepts a connection, and ends.
ENDS_WHEN_ASKED = """#!{python}
import socket, sys
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
    listening.listen()
    listening.accept()
sys.exit(3)
"""


def sync(tmp_path: Path, before: str = "") -> list[str]:
    """Make a store; return a sync of it, in a process that first runs *before*."""
    snapshot = make_store(tmp_path / "a", random_files(10))
    stores = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot]
    return [*program(before), "sync", *stores]


def assert_ends(command: list[str], tmp_path: Path, said: str, **env: str) -> None:
    """Check that *command* fails, that its first line ends with *said*, and that it leaves nothing behind."""
    (tmp_path / "tmp").mkdir()
    with started(*command, env={"TMPDIR": str(tmp_path / "tmp"), **env}, log=tmp_path / "log") as running:
        assert running.process.wait(PATIENCE_S) == 1, running.logged()
        assert running.logged().splitlines()[0].endswith(said)
        assert "Traceback" not in running.logged()
        until(lambda: not running.family(), "every process is gone")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("refused", "part"), [(2, "worker"), (3, "planner")])
def test_a_part_that_the_system_does_not_start_ends_the_command(
    refused: int, part: str, tmp_path: Path
) -> None:
    said = f"snapferry: cannot start the embedded {part}: {os.strerror(11)}"
    assert_ends(sync(tmp_path, NO_PROCESS.format(refused=refused)), tmp_path, said)
    assert not (tmp_path / "b" / ".manifests").exists()


def test_a_keeper_that_fails_ends_the_command(tmp_path: Path) -> None:
    said = "snapferry: the keeper of the embedded fleet failed: ValueError: of the settings"
    assert_ends(sync(tmp_path, KEEPER_FAILS), tmp_path, said)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ('StoreUnavailable("file:///a", "", "gone")', 0),
        ('ManifestSyntaxError("file:///a", "", "damaged")', 1),
        ('OSError("no memory")', 1),
    ],
)
def test_a_planner_handles_an_error_as_a_worker_does(error: str, code: int, tmp_path: Path) -> None:
    """A passing one is met by the worker, which tries again. Another one ends the job, and is not met twice."""
    drives = tmp_path / "drives"
    before = FIRST_STEPS_FAIL.format(error=error, drives=str(drives))
    with started(*sync(tmp_path, before), log=tmp_path / "log") as running:
        assert running.process.wait(PATIENCE_S) == code, running.logged()
    assert (tree(tmp_path / "b") == tree(tmp_path / "a")) == (code == 0)
    assert (drives.stat().st_size == 1) == (code == 1)


@pytest.mark.parametrize("command", ["sync", "run", "mirrors"])
def test_a_server_that_ends_when_it_is_asked_ends_the_command_with_that_reason(
    command: str, tmp_path: Path
) -> None:
    arguments = sync(tmp_path)
    if command != "sync":
        config = tmp_path / "snapferry.toml"
        config.write_text(
            f'[stores]\na = "file://{tmp_path}/a"\nb = "file://{tmp_path}/b"\n'
            '[[mirror]]\nname = "nightly"\nfrom = "a"\nto = "b"\nevery = "1d"\n'
        )
        options = ["--config", str(config), "--state-dir", str(tmp_path / "state")]
        arguments = [*program(), command, *options, *(["nightly"] if command == "run" else [])]
    server = tmp_path / "bin/redis-server"
    server.parent.mkdir()
    server.write_text(ENDS_WHEN_ASKED.format(python=sys.executable))
    server.chmod(0o755)

    path = f"{server.parent}:{os.environ['PATH']}"
    assert_ends(arguments, tmp_path, "snapferry: the embedded server ended unexpectedly", PATH=path)
