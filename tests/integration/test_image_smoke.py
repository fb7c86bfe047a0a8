"""
The commands of `.ci/image_smoke`, run on this machine: its arguments of snapferry are right, and a failure fails it.

There is no Docker here. A program of that name runs the command of a container with the paths of this machine. That the
image can be built, and that its fleet starts, only a machine with Docker shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import PATIENCE_S, REPOSITORY, environment

pytestmark = pytest.mark.slow

DOCKER = """#!{python}
import os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    print(*words, file=log)
if words[0] == "build" or "up" in words or "down" in words or "logs" in words:
    sys.exit({built} if words[0] == "build" else 0)
inside = {{}}
if words[0] == "run":
    at = words.index("snapferry")
    for name, value in zip(words[:at], words[1:at]):
        if name == "--volume":
            here, there = value.split(":")
            inside[there] = here
    words = words[at:]
elif "sample" in words:
    words = [{python!r}, {sample!r}, {fleet!r}]
else:
    words = words[words.index("orchestrator") + 1 :]
    inside["/stores"] = {fleet!r}
for there, here in inside.items():
    words = [here + word.removeprefix(there) if word.startswith(there + "/") else word for word in words]
if words[0] == "snapferry":
    words = [{python!r}, "-m", *words]
os.execv({python!r}, words)
"""

# What the service `sample` does.
SAMPLE = """
import pathlib, sys
from tests.sample import make_store, random_files
print(make_store(pathlib.Path(sys.argv[1], "demo"), random_files(50)))
"""


def smoke(folder: Path, *, built: int = 0) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script; return how it ended, and what it asked Docker to do."""
    (folder / "bin").mkdir()
    (folder / "fleet").mkdir()
    (folder / "tmp").mkdir()
    (folder / "sample.py").write_text(SAMPLE)
    (folder / "log").touch()
    docker = folder / "bin/docker"
    docker.write_text(
        DOCKER.format(
            python=sys.executable,
            log=str(folder / "log"),
            sample=str(folder / "sample.py"),
            fleet=str(folder / "fleet"),
            built=built,
        )
    )
    docker.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [REPOSITORY / ".ci/image_smoke"],
        env=environment({"PATH": path, "TMPDIR": str(folder / "tmp")}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    # It removes what it made, whatever came of it.
    assert list((folder / "tmp").iterdir()) == []
    return ended, (folder / "log").read_text().splitlines()


def test_its_commands_store_copy_check_and_restore(tmp_path: Path) -> None:
    ended, asked = smoke(tmp_path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("\n=== passed\n")
    assert asked[0] == "build --tag snapferry ."
    assert asked[-1] == "compose --profile demo down --volumes --remove-orphans"
    assert (tmp_path / "fleet/copy/.manifests").is_dir()


def test_it_fails_when_the_image_cannot_be_built(tmp_path: Path) -> None:
    ended, asked = smoke(tmp_path, built=1)

    assert ended.returncode == 1
    assert "passed" not in ended.stdout
    assert [line.split()[0] for line in asked] == ["build", "compose", "compose"]
