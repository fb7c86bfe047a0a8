"""What surrounds a command may be hostile: warnings that are errors, few open files, a receipt's path that vanishes."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sample import make_store, random_files, tree

from .processes import finished, program, snapferry


def arguments(tmp_path: Path, *more: str) -> list[str]:
    make_store(tmp_path / "a", random_files(40))
    return ["sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--all", *more]


def test_a_warning_that_is_an_error_ends_nothing(tmp_path: Path) -> None:
    env = {
        "PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1",
        "PYTHONSTARTUP": "/no/such/file",
        "PYTHONINSPECT": "",
    }
    ended = snapferry(*arguments(tmp_path), env=env)
    looked = snapferry("doctor", "--from", str(tmp_path / "a"), env=env)

    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert looked.code == 0, looked.out + looked.err


def limiting(soft: int, hard: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"


@pytest.mark.slow
def test_few_open_files_mean_fewer_objects_at_once_and_no_failure(tmp_path: Path) -> None:
    few = finished([*program(limiting(256, 256)), *arguments(tmp_path, "-j", "1024")])
    shutil.rmtree(tmp_path / "b")
    raised = finished(
        [
            *program(limiting(256, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
            *arguments(tmp_path, "-j", "1024"),
        ]
    )

    assert few.code == raised.code == 0, few.err
    assert "(ulimit -n)" in few.err
    assert "ulimit" not in raised.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


VANISHES = """
import shutil
from snapferry.orchestrator.jobs import Jobs
wait = Jobs.wait
def patched(self, *arguments, **more):
    status = wait(self, *arguments, **more)
    {act}
    return status
Jobs.wait = patched
"""


@pytest.mark.parametrize(
    "act",
    [
        "shutil.rmtree({folder!r})",
        pytest.param("shutil.rmtree({folder!r}); open({folder!r}, 'w').close()", marks=pytest.mark.slow),
        pytest.param("shutil.rmtree({folder!r}); import os; os.makedirs({path!r})", marks=pytest.mark.slow),
    ],
)
def test_a_receipt_that_cannot_be_written_loses_no_summary(tmp_path: Path, act: str) -> None:
    folder, temporary = tmp_path / "receipts", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    path = folder / "receipt.json"
    before = VANISHES.format(act=act.format(folder=str(folder), path=str(path)))
    ended = finished(
        [*program(before), *arguments(tmp_path, "--receipt", str(path))], {"TMPDIR": str(temporary)}
    )

    assert ended.code == 1
    assert "is published: 41 objects" in ended.out
    assert f"cannot write the receipt to {path}" in ended.err
    assert ended.err.count("\n") == 1
    (instead,) = temporary.glob("snapferry-receipt-*.json")
    assert str(instead) in ended.err
    assert json.loads(instead.read_text())["state"] == "done"
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


NO_PATHS: list[tuple[str, Callable[[Path], object]]] = [
    ("does not exist", lambda _: None),
    ("not a regular file", lambda path: path.mkdir(parents=True)),
    ("does not exist", lambda path: path.parent.write_text("a file")),
]


@pytest.mark.parametrize(("said", "make"), NO_PATHS)
def test_a_receipt_that_cannot_be_written_is_refused_before_the_job(
    tmp_path: Path, said: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "folder" / "receipt.json"
    make(path)
    ended = snapferry(*arguments(tmp_path, "--receipt", str(path)))

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert said in ended.err
    assert not (tmp_path / "b").exists()
