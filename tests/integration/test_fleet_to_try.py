"""The fleet that `make fleet` runs, by what it tells to type."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.servers import free_port

from .processes import PATIENCE_S, REPOSITORY, snapferry, until


@pytest.mark.slow
def test_what_it_tells_to_type_finds_the_bad_objects_repairs_them_and_leaves_nothing(tmp_path: Path) -> None:
    flower, dashboard = free_port(), free_port()
    said = tmp_path / "said"
    with said.open("wb") as output:
        fleet = subprocess.Popen(
            [REPOSITORY / ".ci" / "fleet"],
            env={
                **os.environ, "OBJECTS": "300", "BIN": str(Path(sys.executable).parent), "TMPDIR": str(tmp_path),
                "FLOWER_PORT": str(flower), "DASHBOARD_PORT": str(dashboard),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: "Ctrl-C stops" in said.read_text() or fleet.poll() is not None, "it runs")
        told = said.read_text()
        assert "Ctrl-C stops" in told, told
        (broker,) = re.findall(r"SNAPFERRY_BROKER_URL=(\S+)", told)
        env = {"SNAPFERRY_BROKER_URL": broker}
        source, destination = re.findall(r"submit --from (\S+) --to (\S+) --all\n", told)[0]

        assert snapferry("doctor", env=env).code == 0
        job = snapferry("submit", "--from", source, "--to", destination, "--all", env=env).out.strip()
        assert snapferry("watch", job, env=env).code == 1
        failures = snapferry("failures", job, env=env).out
        assert "3 objects failed" in failures
        assert failures.count("./year ") == 3

        (copying,) = re.findall(r"^ +(cp -r .*)$", told, re.MULTILINE)
        subprocess.run(copying.split(), check=True)
        retry = snapferry("retry", job, env=env).out.strip()
        assert snapferry("watch", retry, env=env).code == 0
        assert len(snapferry("ls", destination).out.split()) == 1

        (worker,) = re.findall(r"^ +kill (\d+) ", told, re.MULTILINE)
        os.kill(int(worker), signal.SIGTERM)
        until(lambda: "worker-2@" not in workers_of(env), "a worker was drained, and the others go on")
        for port, path in ((flower, "healthcheck"), (dashboard, f"jobs/{job}")):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE_S) as page:
                assert page.status == 200
    finally:
        fleet.send_signal(signal.SIGINT)
        assert fleet.wait(PATIENCE_S) == 0, said.read_text()

    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def workers_of(env: dict[str, str]) -> str:
    """Return what the doctor says of the fleet's workers."""
    return "\n".join(
        line for line in snapferry("doctor", env=env).out.splitlines() if "snapferry.copy" in line
    )


@pytest.mark.parametrize("objects", ["3", "many"])
def test_a_sample_of_no_size_is_refused(objects: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            REPOSITORY / ".ci" / "fleet_sample.py",
            "store",
            tmp_path / "a",
            objects,
            tmp_path / "b",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "OBJECTS" in done.stderr
    assert not (tmp_path / "a").exists()
