"""Fresh environments, as `pip install` makes them: a worker's, and one for each extra. Each runs its role."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.workers.extras import EXTRAS
from snapferry.workers.ledger.keys import SCHEDULE
from tests.sample import make_store, random_files, tree
from tests.servers import free_port, program

from .processes import PATIENCE_S, REPOSITORY, Finished, Started, finished, started, until

pytestmark = pytest.mark.slow

# Installing is mostly waiting for the network.
INSTALL_S = 1200

MOST_BYTES = 100_000_000


@dataclass
class Installed:
    """A virtual environment in *folder*, in which snapferry was installed with an extra or without."""

    folder: Path

    @property
    def command(self) -> str:
        return str(self.folder / "bin/snapferry")

    def run(self, *arguments: str, **variables: str) -> Finished:
        """Run a command line that ends by itself."""
        return finished([self.command, *arguments], outside(self.folder, variables))

    def role(self, *arguments: str, **variables: str) -> Any:
        """Return a context in which a role runs; its log is beside the environment."""
        log = self.folder.with_suffix(f".{arguments[0]}.log")
        return started(self.command, *arguments, env=outside(self.folder, variables), log=log)


def outside(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """Return variables for a process that finds nothing of the repository."""
    return {"PYTHONPATH": "", "VIRTUAL_ENV": str(folder)} | variables


def call(*command: str | Path) -> None:
    ended = subprocess.run(
        [*map(str, command)],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def disk_bytes(folder: Path) -> int:
    """Return what `du` would."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=INSTALL_S,
    )
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions that were tested. Without hashes, because the wheel has none."""
    text = (REPOSITORY / ".ci/constraints-runtime.txt").read_text()
    pins = re.findall(r"^([a-z0-9.-]+==[^\\\n]*?) *\\$", text, re.MULTILINE)
    assert len(pins) > 40
    path = tmp_path_factory.mktemp("versions") / "versions.txt"
    path.write_text("\n".join(pins))
    return path


@pytest.fixture(scope="module")
def worker(wheel: Path, versions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Installed, int]:
    """What `pip install snapferry` makes, and the bytes that it adds to a new environment."""
    folder = tmp_path_factory.mktemp("environments") / "worker"
    call(sys.executable, "-m", "venv", folder)
    before = disk_bytes(folder)
    call(folder / "bin/python", "-m", "pip", "install", "-c", versions, wheel)
    call(folder / "bin/python", "-m", "pip", "check")
    return Installed(folder), disk_bytes(folder) - before


@pytest.fixture(scope="module")
def install(
    wheel: Path, versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Installed]]:
    """Install an extra in an environment of its own. uv shares the files of packages among environments."""
    uv = shutil.which("uv", path=Path(sys.executable).parent)
    assert uv, "uv is not installed; run: .ci/setup all"
    root = tmp_path_factory.mktemp("extras")

    def make(extra: str) -> Installed:
        folder = root / extra
        if not folder.exists():
            call(uv, "venv", "--no-config", "--python", sys.executable, folder)
            named = f"snapferry[{extra}] @ {wheel.as_uri()}"
            call(uv, "pip", "install", "--python", folder / "bin/python", "-c", versions, named)
            call(uv, "pip", "check", "--python", folder / "bin/python")
        return Installed(folder)

    yield make
    shutil.rmtree(root)


def test_a_worker_is_less_than_100_mb(worker: tuple[Installed, int]) -> None:
    installed, added = worker

    assert added < MOST_BYTES
    assert installed.run("--version").out.startswith("snapferry ")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("dashboard --broker redis://127.0.0.1:1", "dashboard"),
        ("flower --broker redis://127.0.0.1:1", "flower"),
        ("scheduler --broker redis://127.0.0.1:1", "scheduler"),
        ("orchestrator --broker redis://127.0.0.1:1", "orchestrator"),
        ("sync {tmp}/a {tmp}/b --all", "local"),
        ("push {tmp}/a {tmp}/b", "local"),
    ],
)
def test_a_role_that_is_not_installed_names_its_extra_in_one_line(
    arguments: str, extra: str, worker: tuple[Installed, int], tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()

    ended = worker[0].run(*arguments.format(tmp=tmp_path).split())

    assert (ended.code, ended.out) == (2, ""), ended.err
    (line,) = ended.err.splitlines()
    assert line.endswith(f" not installed; run: pip install 'snapferry[{extra}]'")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_worker_tells_what_messages_and_traces_need(
    worker: tuple[Installed, int], redis_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "snapferry.toml"
    (tmp_path / "urls").write_text("json://127.0.0.1:1/\n")
    (tmp_path / "urls").chmod(0o600)
    config.write_text(f'[notify]\nurls-file = "{tmp_path}/urls"\n')

    ended = worker[0].run("notify", "--test", "--config", str(config))
    assert ended.code == 2
    assert "pip install 'snapferry[notify]'" in ended.err

    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "SNAPFERRY_BROKER_URL": redis_url}
    with worker[0].role("worker", **traced) as running:
        until(lambda: "snapferry[otel]" in running.logged(), "the worker says so")
        until(lambda: "ready" in running.logged(), "the worker goes on")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_each_role_runs_in_the_environment_of_its_extra(
    worker: tuple[Installed, int], install: Callable[[str], Installed], redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(200))
    config = tmp_path / "snapferry.toml"
    config.write_text(f'[[mirror]]\nname = "m"\nfrom = "{tmp_path}/a"\nto = "{tmp_path}/c"\nevery = "10s"\n')
    here = {"SNAPFERRY_BROKER_URL": redis_url, "SNAPFERRY_CONFIG": str(config)}
    here |= {"SNAPFERRY_ACCESS_READ": f"file://{tmp_path}", "SNAPFERRY_ACCESS_WRITE": f"file://{tmp_path}"}
    pages = {name: free_port() for name in ("dashboard", "flower")}
    with ExitStack() as stack:

        def begin(installed: Installed, *arguments: str) -> Started:
            running: Started = stack.enter_context(installed.role(*arguments, **here))
            return running

        begin(worker[0], "worker")
        begin(install("orchestrator"), "orchestrator")
        begin(install("scheduler"), "scheduler")
        begin(install("dashboard"), "dashboard", "--port", str(pages["dashboard"]))
        begin(
            install("flower"), "flower", "--port", str(pages["flower"]), "--db", str(tmp_path / "f/flower.db")
        )
        # The job is submitted and followed from a machine that has a worker's packages.
        ended = worker[0].run("sync", f"{tmp_path}/a", f"{tmp_path}/b", "--id", snapshot, "--json", **here)
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["state"] == "done"
        assert tree(tmp_path / "a") == tree(tmp_path / "b")

        until(lambda: answers(f"http://127.0.0.1:{pages['dashboard']}/healthz"), "the dashboard answers")
        until(lambda: answers(f"http://127.0.0.1:{pages['flower']}/healthcheck"), "Flower answers")
        with redis.Redis.from_url(redis_url) as client:
            until(lambda: client.exists(f"{SCHEDULE}:lock"), "the scheduler keeps the schedule")
        until((tmp_path / "c/.manifests").exists, "the mirror was run")


def test_commands_without_a_broker_run_in_the_environment_of_local(
    install: Callable[[str], Installed], tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(50))
    local = install("local")
    # The bundled server, not the one of this machine.
    assert program("redis-server")
    nothing = {"PATH": str(tmp_path)}

    ended = local.run("sync", f"{tmp_path}/a", f"{tmp_path}/b", "--id", snapshot, **nothing)

    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert local.run("doctor", **nothing).code == 0


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_installs_its_modules(extra: str, install: Callable[[str], Installed]) -> None:
    modules = f"import {', '.join(EXTRAS[extra])}"

    ended = subprocess.run(
        [install(extra).folder / "bin/python", "-c", modules],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr


def test_the_files_of_a_release_are_made_twice_alike(tmp_path: Path) -> None:
    """The wheel, the source archive and the bill of materials do not depend on when and where they are made."""
    for name in ("one", "two"):
        call(REPOSITORY / ".ci/release", tmp_path / name)

    one, two = (json.dumps((tmp_path / name / "SHA256SUMS").read_text()) for name in ("one", "two"))
    assert one == two
    (path,) = (tmp_path / "one").glob("*.cdx.json")
    bill = json.loads(path.read_text())
    listed = {component["name"].lower().replace("_", "-") for component in bill["components"]}
    runtime = (REPOSITORY / ".ci/constraints-runtime.txt").read_text()
    everywhere = r"^([a-z0-9.-]+)==[^;\n]*; sys_platform == 'darwin' or sys_platform == 'linux' \\$"
    always = set(re.findall(everywhere, runtime, re.MULTILINE))
    assert {"celery", "redis", "blake3", "boto3", "flower"} <= always <= listed
    assert not {"pip", "setuptools", "hatchling", "pytest"} & listed
    assert bill["metadata"]["component"]["name"] == "snapferry"
