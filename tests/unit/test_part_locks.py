"""The turns of those that write parts of one file."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.stores.backends.directory.in_parts import locks
from snapferry.stores.backends.directory.in_parts.locks import Turn, locked

AT = 100


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[list[int]]:
    """The same file, opened twice, as by two processes."""
    path = tmp_path / "file"
    path.touch()
    opened = [os.open(path, os.O_RDWR) for _ in range(2)]
    yield opened
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize("processes", [1, 2])
def test_one_at_a_time_has_the_turn(
    descriptors: list[int], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TURN_S", 240.0)
    turns = [Turn(AT) for _ in range(processes)]
    inside: list[int] = []
    most = 0
    times = 0

    def write(number: int) -> None:
        nonlocal most, times
        for _ in range(50):
            with turns[number % processes].taken(descriptors[number]):
                inside.append(number)
                most = max(most, len(inside))
                times += 1
                inside.remove(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (most, times) == (1, 100)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_holder_that_does_not_go_on_delays_the_others_only(
    descriptors: list[int], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TURN_S", 0.01)
    turns = [Turn(AT) for _ in range(processes)]

    with turns[0].taken(descriptors[0]):
        with turns[-1].taken(descriptors[1]):
            pass
        # It was not taken away from its holder, and is not left behind by the other.
        with turns[-1].taken(descriptors[1]):
            pass
    monkeypatch.setattr(locks, "TURN_S", 240.0)
    with turns[-1].taken(descriptors[1]):
        pass


def test_a_file_that_cannot_be_locked_is_written_all_the_same() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Turn(AT).taken(writing):
        pass
    os.close(writing)
    with Turn(AT).taken(writing):
        pass


def test_a_turn_does_not_hold_up_the_lock_of_a_part(descriptors: list[int]) -> None:
    with Turn(AT).taken(descriptors[0]), locked(descriptors[1], 0, AT):
        pass
