"""The demo that `make demo` runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import PATIENCE_S, REPOSITORY

BIN = Path(sys.executable).parent


def demo(folder: Path, bin_: Path = BIN) -> subprocess.CompletedProcess[str]:
    """Run the demo with the commands in *bin_*. It makes everything in *folder*, which is empty again afterwards."""
    done = subprocess.run(
        [REPOSITORY / ".ci" / "demo"],
        env={**os.environ, "BIN": str(bin_), "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not list(folder.iterdir()), done.stdout
    return done


def test_it_tells_the_whole_story(tmp_path: Path) -> None:
    done = demo(tmp_path)

    assert done.returncode == 0, done.stdout
    commands = re.findall(r"^  \$ (\w+ ?\w*)", done.stdout, re.MULTILINE)
    assert commands == [
        "snapferry push", "snapferry sync", "snapferry ls", "snapferry verify", "dd if", "snapferry verify",
        "snapferry heal", "find second", "snapferry verify", "snapferry pull", "diff ",
    ]  # fmt: skip
    steps = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    # The content is in the tree twice.
    for path in ("./library/json/decoder.py", "./second copy of json/decoder.py"):
        assert path in steps["6"]
        assert path not in steps["4"] + steps["8"]


@pytest.mark.slow
def test_it_fails_if_the_pulled_tree_is_another_one(tmp_path: Path) -> None:
    folder, bin_ = tmp_path / "work", tmp_path / "bin"
    folder.mkdir()
    bin_.mkdir()
    altered = 'if [ "$1" = pull ]; then echo more >>pulled/empty; fi'
    for name, after in (("python", ""), ("snapferry", altered)):
        (bin_ / name).write_text(f'#!/bin/sh\n"{BIN}/{name}" "$@" || exit\n{after}\n')
        (bin_ / name).chmod(0o755)

    done = demo(folder, bin_)

    assert done.returncode == 1, done.stdout
    assert "diff" in done.stdout
