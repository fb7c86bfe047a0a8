"""Importing a package starts nothing, and the command line imports no more than it needs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import walk_packages

import click
import pytest

import snapferry
from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.cli.group import COMMANDS, LazyGroup, cli
from snapferry.orchestrator.cli.lazy import load
from snapferry.orchestrator.cli.options.declare import Command
from snapferry.workers.queues import PLAN_QUEUE
from snapferry.workers.settings.environment import Settings

REPOSITORY = Path(__file__).parents[2]

# Run in a fresh interpreter: whoever asks for one of our variables, or opens a socket, is named and ends it.
TRAP = """
import os, socket, subprocess, sys, threading

OURS = ("SNAPFERRY_", "SNAPDIR_", "AWS_")

class Poisoned(dict):
    def _refuse(self, name):
        if str(name).startswith(OURS):
            raise SystemExit(f"read {name} at import")
    def __getitem__(self, name):
        self._refuse(name)
        return super().__getitem__(name)
    def get(self, name, default=None):
        self._refuse(name)
        return super().get(name, default)
    def __contains__(self, name):
        self._refuse(name)
        return super().__contains__(name)

os.environ = Poisoned(os.environ)
os.getenv = os.environ.get

def refuse(what):
    def refused(*args, **kwargs):
        raise SystemExit(f"{what} at import")
    return refused

socket.socket.connect = refuse("connect")
socket.create_connection = refuse("connect")
socket.getaddrinfo = refuse("name lookup")
threading.Thread.start = refuse("thread")
subprocess.Popen.__init__ = refuse("process")
os.fork = refuse("fork")
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "SNAPFERRY_BROKER_URL": "redis://203.0.113.1:1/0",
        "SNAPFERRY_BATCH_OBJECTS": "not a number",
        "AWS_PROFILE": "no such profile",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", TRAP + code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


EVERYTHING = """
from importlib import import_module
for name in {names}:
    try:
        import_module(name)
    except ModuleNotFoundError as missing:
        # A library of an extra need not be installed.
        if missing.name.startswith("snapferry"):
            raise
"""

# A module that is imported by itself shows as well that it needs no other one before it.
MODULES = [
    "snapferry",
    "snapferry.worker",
    "snapferry.stores",
    "snapferry.stores.opening",
    "snapferry.stores.urls",
    "snapferry.stores.snapshot_store",
    "snapferry.stores.backends.directory.backend",
    "snapferry.stores.backends.memory",
    "snapferry.workers.app",
    "snapferry.workers.copying.tasks",
    "snapferry.workers.settings.environment",
    "snapferry.workers.telemetry.metrics.exporter",
    "snapferry.workers.telemetry.tracing",
    "snapferry.orchestrator.app",
    "snapferry.orchestrator.celery",
    "snapferry.orchestrator.jobs",
    "snapferry.orchestrator.driving.drive",
    "snapferry.orchestrator.embedded",
    "snapferry.orchestrator.reporting.fleet_metrics",
    "snapferry.orchestrator.cli",
]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_importing_connects_to_nothing_and_reads_no_variable(module: str) -> None:
    ended = run(f"import {module}")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_importing_everything_connects_to_nothing_and_reads_no_variable() -> None:
    names = [module.name for module in walk_packages(snapferry.__path__, "snapferry.")]
    assert set(MODULES) <= {"snapferry", *names}

    # Where Airflow is missing, its module says so and cannot be imported.
    left_out = ("snapferry.airflow", "snapferry.__main__")
    ended = run(EVERYTHING.format(names=[name for name in names if name not in left_out]))

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.environ['SNAPFERRY_BROKER_URL']", "read SNAPFERRY_BROKER_URL"),
        ("import os; os.getenv('AWS_PROFILE')", "read AWS_PROFILE"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "connect"),
        ("import redis; redis.Redis(port=1).ping()", "at import"),
        ("import snapferry.worker; snapferry.worker.app", "read SNAPFERRY_"),
        (
            "from snapferry.workers.settings.environment import Settings; Settings.from_environment()",
            "read SNAPFERRY_",
        ),
    ],
)
def test_the_trap_of_this_file_catches_what_it_is_for(code: str, said: str) -> None:
    ended = run(code)

    assert ended.returncode == 1
    assert said in ended.stderr


@pytest.mark.parametrize("module", ["snapferry.worker", "snapferry.orchestrator.celery"])
def test_an_app_without_a_broker_ends_with_one_line_and_no_traceback(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAPFERRY_")}

    ended = subprocess.run(
        [sys.executable, "-c", f"import {module}; {module}.app"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("snapferry: no broker: set SNAPFERRY_BROKER_URL")
    assert ended.stderr.count("\n") == 1


def test_making_an_app_connects_to_nothing() -> None:
    code = (
        "from snapferry.workers.settings.environment import Settings;"
        "from snapferry.orchestrator.app import make_fleet_app;"
        "app = make_fleet_app(Settings(broker_url='redis://203.0.113.1:1/0'));"
        "print(sorted(name for name in app.tasks if name.startswith('snapferry.')))"
    )

    ended = run(code)

    assert ended.stdout == (
        "['snapferry.commit_snapshots', 'snapferry.copy_batch', 'snapferry.copy_parts', 'snapferry.look_after_job',"
        " 'snapferry.plan_job', 'snapferry.run_mirror', 'snapferry.run_scrub']\n"
    ), ended.stderr


# Libraries that take most of the time in which a command starts.
HEAVY = {"boto3", "botocore", "celery", "flower", "kombu", "numpy", "pydantic", "redis", "rich", "tornado"}

# Runs command lines, each in a process that is forked when nothing but the command line itself is imported.
RUN = f"""
import json, os, sys
from snapferry.orchestrator.cli import main
for arguments, variables in json.load(sys.stdin):
    sys.stdout.flush()
    if not os.fork():
        os.environ.update(variables)
        sys.argv[1:] = arguments
        try:
            main()
        except SystemExit as ended:
            print()
            print("loaded", ended.code, sorted({HEAVY} & set(sys.modules)), flush=True)
        os._exit(0)
    os.wait()
"""


def loaded(*lines: str, **variables: str) -> dict[str, str]:
    """Run command lines in fresh processes; return the exit code of each and the heavy libraries it imported."""
    ended = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=REPOSITORY,
        env=dict(os.environ),
        input=json.dumps([(line.split(), variables) for line in lines]),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found = [line.removeprefix("loaded ") for line in ended.stdout.splitlines() if line.startswith("loaded ")]
    return dict(zip(lines, found, strict=True))


def test_a_help_page_imports_no_heavy_library() -> None:
    pages = [f"{command} --help" for command in ("", *COMMANDS)]

    assert loaded(*pages) == dict.fromkeys(pages, "0 []")


def test_an_error_in_the_command_line_imports_no_heavy_library() -> None:
    wrong = [
        "sync",
        "sync --nonsense",
        "submit --max-bytes much",
        "resume --patience long 1234",
        "jobs --state lost",
        "nonsense",
    ]

    assert loaded(*wrong) == dict.fromkeys(wrong, "2 []")


def test_the_completion_of_options_imports_no_heavy_library() -> None:
    completion = {
        "_SNAPFERRY_COMPLETE": "bash_complete",
        "COMP_WORDS": "snapferry sync --max",
        "COMP_CWORD": "2",
    }

    assert loaded("", **completion) == {"": "0 []"}


def test_what_these_tests_look_for_is_imported_when_a_command_runs() -> None:
    line = "status --broker nonsense 1234"

    assert "celery" in loaded(line)[line]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_body(name: str) -> None:
    assert isinstance(cli, LazyGroup)
    command = cli.get_command(click.Context(cli), name)

    assert isinstance(command, Command)
    assert callable(load(f"run.{command.run}") if command.run else command.callback)


def test_every_task_of_an_orchestrator_goes_to_its_queue() -> None:
    app = make_fleet_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    of_workers = {"snapferry.copy_batch", "snapferry.copy_parts"}
    own = [name for name in app.tasks if name.startswith("snapferry.") and name not in of_workers]

    assert "snapferry.run_scrub" in own
    assert {app.conf.task_routes[name]["queue"] for name in own} == {PLAN_QUEUE}


def late_imports(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the first import of each block that is in a function, or for the type checker alone."""

    def blocks(node: ast.AST, *, late: bool) -> Iterator[list[ast.stmt]]:
        late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        late = late or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for name in ("body", "orelse", "handlers", "finalbody"):
            found = getattr(node, name, [])
            if late and name != "handlers":
                yield found
            for each in found:
                yield from blocks(each, late=late)

    for block in blocks(tree, late=False):
        imports = [isinstance(each, ast.Import | ast.ImportFrom) for each in block]
        if True in imports:
            yield block[imports.index(True)]


def test_each_late_import_has_its_reason() -> None:
    """A comment above it, or the docstring of its module, says why it is not at the beginning of the file."""
    without = []
    for path in sorted(REPOSITORY.glob("[!.]*/**/*.py")):
        folder = path.relative_to(REPOSITORY).parts[0]
        if folder not in ("stores", "workers", "orchestrator", "snapferry") or path.is_symlink():
            continue
        lines = path.read_text().splitlines()
        tree = ast.parse("\n".join(lines))
        if "import" in (ast.get_docstring(tree) or ""):
            continue
        without += [
            f"{path.relative_to(REPOSITORY)}:{each.lineno}"
            for each in late_imports(tree)
            if not lines[each.lineno - 2].lstrip().startswith("#")
        ]
    assert without == []
