"""Measuring beside an older tree: which code runs, in which order, and what the table says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.against import Trees, UnknownRevision, table, unpack, verdict
from benchmarks.commands import ROOT
from benchmarks.measure import Command, Run, run
from benchmarks.report import timed
from benchmarks.rounds import OURS, Round, measure_rounds


def committed(revision: str = "HEAD") -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--short", revision]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def test_each_side_runs_its_own_code(tmp_path: Path) -> None:
    package = tmp_path / "snapferry"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('the older one')\n")
    commands = Trees("older", tmp_path).commands({OURS: ["--version"], "older": ["--version"]})

    assert run(commands["older"]).said.strip() == "the older one"
    assert run(commands[OURS]).said.startswith("snapferry ")


def test_the_older_tree_is_complete_and_named_by_its_commit(tmp_path: Path) -> None:
    name = committed()
    if not name:
        with pytest.raises(UnknownRevision):
            unpack("HEAD", tmp_path / "tree")
        return

    assert unpack("HEAD", tmp_path / "tree") == name
    assert (tmp_path / "tree/snapferry/stores").resolve() == tmp_path / "tree/stores"
    assert (tmp_path / "tree/pyproject.toml").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tree"]


@pytest.mark.parametrize("revision", ["no-such-thing", "--all", "", "HEAD:README.md"])
def test_what_names_no_commit_is_refused(tmp_path: Path, revision: str) -> None:
    with pytest.raises(UnknownRevision):
        unpack(revision, tmp_path / "tree")

    assert not list(tmp_path.iterdir())


def test_a_wrong_revision_is_one_line_and_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.against", "no-such-thing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_sides_take_turns_at_being_first(tmp_path: Path) -> None:
    order: list[str] = []
    nothing = Command([sys.executable, "-S", "-c", ""])

    rounds = measure_rounds(3, {OURS: nothing, "older": nothing}, ran=order.append, by_turns=True)

    assert order == [OURS, "older", "older", OURS, OURS, "older"]
    assert [list(one.runs) for one in rounds] == [[OURS, "older"]] * 3


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([1.03, 1.10], "**slower**"),
        ([0.97, 0.60], "faster"),
        ([1.01, 1.50], "the same"),
        ([0.50, 1.50], "the same"),
        ([1.0], "the same"),
    ],
)
def test_only_what_every_round_shows_is_said(ratios: list[float], found: str) -> None:
    assert verdict(ratios) == found


def test_the_table_has_times_and_cpu_times() -> None:
    runs = {OURS: Run(4.0, 3.0, 2.0), "abc123": Run(2.0, 1.0, 0.5)}

    text = table([timed("push", [Round(runs, 0.0)])], "abc123")

    assert "| push | 4.00 s | 2.00 s | 2.00 x | 3.00 x | **slower** |" in text
