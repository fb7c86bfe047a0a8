"""The command with the example plug-in installed: a snapshot goes into a SQLite file, and out of it again."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sample import make_store, tree

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

FILES = {f"./f{number}": bytes([number]) * number * 1000 for number in range(20)} | {"./empty": b""}

Run = Callable[..., subprocess.CompletedProcess[str]]


def install(folder: Path) -> None:
    """Write what an installation of the plug-in's distribution leaves in *folder*, which goes on the path."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    metadata = folder / f"snapferry_sqlite-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (folder / "snapferry_sqlite").symlink_to(HERE / "snapferry_sqlite")


@pytest.fixture
def snapferry(tmp_path: Path) -> Run:
    site = tmp_path / "site"
    site.mkdir()
    install(site)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAPFERRY_")}
        return subprocess.run(
            [sys.executable, "-m", "snapferry", *arguments],
            cwd=REPOSITORY,
            env=environment | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_a_snapshot_goes_into_a_sqlite_file_and_out_of_it(snapferry: Run, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "source", FILES)
    url = f"sqlite://{tmp_path}/store.db"

    there = snapferry("sync", "--from", f"{tmp_path}/source", "--to", url, "--id", snapshot)
    again = snapferry("sync", "--from", f"{tmp_path}/source", "--to", url, "--id", snapshot)
    back = snapferry("sync", "--from", url, "--to", f"{tmp_path}/back", "--all")
    listed = snapferry("ls", url)

    assert [ended.returncode for ended in (there, again, back, listed)] == [0, 0, 0, 0], (
        there.stderr + back.stderr
    )
    assert listed.stdout == f"{snapshot}\n"
    assert tree(tmp_path / "back") == tree(tmp_path / "source")


def test_a_missing_sqlite_file_is_no_empty_store(snapferry: Run, tmp_path: Path) -> None:
    ended = snapferry("ls", f"sqlite://{tmp_path}/missing.db")

    assert ended.returncode != 0
    assert "there is no such file" in ended.stderr


def test_doctor_probes_a_store_of_a_plug_in(snapferry: Run, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "source", FILES)
    url = f"sqlite://{tmp_path}/store.db"
    snapferry("sync", "--from", f"{tmp_path}/source", "--to", url, "--id", snapshot)

    ended = snapferry("doctor", "--to", url)

    assert "can be written, read, listed and deleted" in ended.stdout + ended.stderr


def test_a_plug_in_that_cannot_be_loaded_costs_only_its_own_urls(snapferry: Run, tmp_path: Path) -> None:
    broken = tmp_path / "site" / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (broken / "entry_points.txt").write_text("[snapferry.backends]\nbroken = no_such_module:KIND\n")
    make_store(tmp_path / "source", FILES)

    own, other = snapferry("ls", "broken:///x"), snapferry("ls", f"{tmp_path}/source")

    assert other.returncode == 0
    assert own.returncode != 0
    assert "the plug-in no_such_module:KIND, which cannot be loaded" in own.stderr
