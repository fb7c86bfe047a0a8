"""Who is dead: known of this machine's processes, and claimed of no one else's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.stores.runtime import liveness
from snapferry.stores.runtime.liveness import identity, is_dead

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """A process of its own, that says who it is and waits until its input ends."""
    code = (
        "import sys; from snapferry.stores.runtime.liveness import identity; print(identity(), flush=True);"
    )
    code += " sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_stays_the_same_and_is_not_dead() -> None:
    machine, process, token = identity().split("-")

    assert identity() == f"{machine}-{process}-{token}"
    assert int(process) == os.getpid()
    assert not is_dead(identity())


def test_a_process_is_dead_once_it_was_killed_and_not_before(other: subprocess.Popen[str]) -> None:
    who = said(other)

    assert who.split("-")[0] == identity().split("-")[0]
    assert not is_dead(who)

    other.kill()
    other.wait()
    assert is_dead(who)


def test_an_earlier_process_with_this_ones_number_is_dead() -> None:
    machine, process, _ = identity().split("-")

    assert is_dead(f"{machine}-{process}-0123456789ab")


def test_a_process_that_another_user_owns_is_not_known_to_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_not_ask(process: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", may_not_ask)

    assert not is_dead(f"{identity().split('-')[0]}-1-0123456789ab")


def test_a_process_of_another_machine_is_not_known_to_be_dead(other: subprocess.Popen[str]) -> None:
    """The number of a process that is dead here says nothing about the one that has it there."""
    machine, process, token = said(other).split("-")
    other.kill()
    other.wait()
    boot, _, numbering = machine.partition(".")

    assert is_dead(f"{machine}-{process}-{token}")
    assert not is_dead(f"another-{process}-{token}")
    assert not is_dead(f"{boot}.{int(numbering) + 1}-{process}-{token}")
    assert not is_dead(f"0123456789ab.{numbering}-{process}-{token}")


@pytest.mark.parametrize(
    "name",
    ["", "host", "host-1", "{machine}", "{machine}-1", "{machine}-x-y", "{machine}-1-a-b", "{machine}--1-a",
     "{machine}-\u00b2-a", "{machine}-" + "9" * 30 + "-a", "{machine}-" + "9" * 5000 + "-a"],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_identity_of_a_process_is_not_known_to_be_dead(name: str) -> None:
    assert not is_dead(name.format(machine=identity().split("-")[0]))


def test_a_forked_child_is_another_process_than_its_parent() -> None:
    """Also where the numbers of processes come around: the token is another one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, identity().encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        who = pipe.read()
    os.waitpid(child, 0)

    machine, process, token = who.split("-")
    assert (machine, int(process)) == (identity().split("-")[0], child)
    assert token != identity().split("-")[2]
    assert is_dead(who)


def test_where_the_system_does_not_name_the_machine_nobody_is_dead(
    monkeypatch: pytest.MonkeyPatch, other: subprocess.Popen[str]
) -> None:
    who = said(other)
    other.kill()
    other.wait()
    liveness._machine.cache_clear()
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    try:
        assert not is_dead(who)
        assert not is_dead(identity())
        assert identity() == identity()
    finally:
        monkeypatch.undo()
        liveness._machine.cache_clear()
