"""The metrics of several processes that come and go, and what is said where they cannot be served."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.forge import Forge
from tests.integration.processes import PATIENCE_S
from tests.scrape import Scrape
from tests.servers import free_port

REPOSITORY = Path(__file__).parents[2]

# Children that count and end, one that is killed with a batch in flight, one that lives; a scrape after each.
SCRIPT = """
import json, os, signal, sys, urllib.request
from pathlib import Path
from celery import signals
from snapferry.workers.telemetry.metrics import counters as counting
from snapferry.workers.telemetry.metrics.exporter import serving
from snapferry.workers.outcome import BatchOutcome
import tempfile

port = int(sys.argv[1])
found = {}

def look(name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=240) as answer:
        found[name] = answer.read().decode()
    (folder,) = Path(tempfile.gettempdir(), f"snapferry-metrics-{os.getuid()}").iterdir()
    found[name + " files"] = len(list(folder.iterdir()))

def child(copied, then):
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        # As Celery says in each process of its pool.
        signals.worker_process_init.send(sender=None)
        with counting.running():
            counting.ran(BatchOutcome(copied=copied, bytes_copied=10 * copied), 0.3, again=False)
            os.write(tell, b".")
            if then == "wait":
                signal.pause()
        os._exit(0)
    os.read(told, 1)
    os.close(told); os.close(tell)
    return process

with serving("worker", "127.0.0.1", port, tasks=["snapferry.copy_batch"]):
    look("at first")
    for number in range(20):
        os.waitpid(child(1, "end"), 0)
    look("children that ended")
    killed = child(100, "wait")
    lives = child(1000, "wait")
    look("two that run")
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    look("one that was killed")
    look("again")
    os.kill(lives, signal.SIGKILL)
    os.waitpid(lives, 0)
left = list(Path(tempfile.gettempdir(), f"snapferry-metrics-{os.getuid()}").iterdir())
print(json.dumps(found | {"left": [str(path) for path in left]}))
"""


def test_what_a_process_counted_outlives_it_and_its_files_do_not(tmp_path: Path) -> None:
    (tmp_path / f"snapferry-metrics-{os.getuid()}").mkdir(mode=0o700)
    dead = subprocess.run(
        [sys.executable, "-c", "from snapferry.stores.runtime.liveness import identity; print(identity())"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    ).stdout.strip()  # fmt: skip
    (tmp_path / f"snapferry-metrics-{os.getuid()}" / dead).mkdir()

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(free_port())],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)

    def figures(name: str) -> tuple[float, float, float, float]:
        scrape = Scrape(found[name])
        return (
            scrape.value("snapferry_objects_total", outcome="copied"),
            scrape.value("snapferry_copied_bytes_total"),
            scrape.value("snapferry_batch_duration_seconds_count"),
            scrape.value("snapferry_batches_in_flight"),
        )

    assert figures("at first") == (0, 0, 0, 0)
    assert figures("children that ended") == (20, 200, 20, 0)
    assert figures("two that run") == (1120, 11200, 22, 2)
    assert figures("one that was killed") == (1120, 11200, 22, 1)
    assert found["again"] == found["one that was killed"]
    # Three kinds of files for the main process, a child, and two for all dead together.
    assert found["again files"] <= 8
    assert found["left"] == []


FULL = """
import errno, os, resource, sys, tempfile
from pathlib import Path
from celery import signals
from snapferry.workers.telemetry.metrics import counters as counting
from snapferry.workers.telemetry.metrics import exporter as serving
from snapferry.workers.outcome import BatchOutcome

with serving.serving("worker", "127.0.0.1", int(sys.argv[1]), tasks=[]):
    if os.fork() == 0:
        # No file of this process may grow, as on a disk that is full.
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signals.worker_process_init.send(sender=None)
        counting.ran(BatchOutcome(copied=1), 0.1, again=False)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_process_without_room_for_its_metrics_works_on_and_says_so(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(free_port())],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (0, "7\n"), ended.stderr
    reason = r"metrics disabled: no space in (\S+): File too large\n"
    found = re.fullmatch(reason, ended.stderr)
    assert found, ended.stderr
    assert Path(found[1]).is_relative_to(tmp_path)


BROKER = {"SNAPFERRY_BROKER_URL": "redis://127.0.0.1:1/0"}


@pytest.mark.parametrize("role", ["worker", "orchestrator"])
def test_a_port_that_is_taken_is_one_line_and_nothing_is_begun(
    forge: Forge, role: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = forge.run([role, "--metrics-port", str(port)], BROKER | {"TMPDIR": str(tmp_path)})

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"snapferry: cannot serve metrics at 127.0.0.1 port {port}: Address already in use\n"
    )
    assert not list(tmp_path.glob("*/*"))


def test_an_address_that_is_none_is_one_line(forge: Forge, tmp_path: Path) -> None:
    command = ["worker", "--metrics-port", "9464", "--metrics-address", "no such host"]
    ended = forge.run(command, BROKER | {"TMPDIR": str(tmp_path)})

    assert ended.code == 2
    assert ended.err.startswith("snapferry: cannot serve metrics at no such host port 9464: ")
    assert ended.err.count("\n") == 1


def test_a_temporary_directory_that_others_can_enter_is_refused(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / f"snapferry-metrics-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"snapferry-metrics-{os.getuid()}").chmod(0o777)

    variables = {"SNAPFERRY_METRICS_PORT": str(free_port()), "TMPDIR": str(tmp_path)}
    ended = forge.run(["worker"], BROKER | variables)

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert (
        "cannot store metrics: cannot create a private folder in the temporary directory (TMPDIR)"
        in ended.err
    )


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_port_that_is_none_is_one_line(forge: Forge, port: str) -> None:
    ended = forge.run(["worker", "--metrics-port", port], BROKER)

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--metrics-port" in ended.err
