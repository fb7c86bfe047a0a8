"""Work that other processes do: all that they say or nothing, and none of them is left behind."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snapferry.stores.bulk import forked
from snapferry.stores.bulk.forked import Forked, worth
from snapferry.stores.runtime.interruption import checkpoint, interruptible

# More than a pipe holds.
MANY = 3_000_000


def said_by(process: Forked) -> bytearray | None:
    with closing(process):
        return process.rest()


def ended(process: Forked) -> bool:
    try:
        os.kill(process._process, 0)
    except ProcessLookupError:
        return True
    return False


def numbers(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield number.to_bytes(8, "little")


def test_what_a_process_says_comes_whole_however_much_it_is() -> None:
    words = os.urandom(MANY)
    process = Forked(lambda: [words[:1000], b"", words[1000:]])

    assert said_by(process) == bytearray(words)
    assert ended(process)


def test_nothing_said_to_the_end_is_not_the_same_as_an_end_too_early() -> None:
    assert said_by(Forked(list)) == bytearray()
    assert said_by(Forked(lambda: os._exit(0))) is None


def test_what_is_there_already_is_handed_over_in_whole_units_and_never_twice() -> None:
    found = bytearray()
    with closing(Forked(lambda: numbers(200_000), 8)) as process:
        while len(found) < 8 * 100_000:
            some = process.some()
            assert len(some) % 8 == 0
            found += some
        rest = process.rest()

    assert rest is not None
    assert b"".join(numbers(200_000)) == found + rest


def test_listening_waits_for_nothing() -> None:
    def silent() -> Iterator[bytes]:
        time.sleep(600)
        yield from ()

    with closing(Forked(silent)) as process:
        assert process.some() == b""
        os.kill(process._process, signal.SIGKILL)


def killed_in_between() -> Iterator[bytes]:
    yield b"x" * 1000
    os.kill(os.getpid(), signal.SIGKILL)
    yield b"y"


def failing_in_between() -> Iterator[bytes]:
    yield b"x" * 1000
    raise ValueError


@pytest.mark.parametrize("work", [killed_in_between, failing_in_between])
def test_a_process_that_did_not_come_to_its_end_has_said_nothing(
    work: object, capfd: pytest.CaptureFixture[str]
) -> None:
    process = Forked(work)  # type: ignore[arg-type]

    assert said_by(process) is None
    assert ended(process)
    assert capfd.readouterr() == ("", "")


def test_words_that_end_like_a_count_are_not_taken_for_one() -> None:
    """Killed right behind eight bytes that happen to be the number of those before them."""

    def work() -> Iterator[bytes]:
        yield b"x" * 16
        yield (17).to_bytes(8, "little")
        os._exit(0)

    assert said_by(Forked(work)) is None


def test_processes_that_nobody_listens_to_any_more_end_in_whatever_order_they_are_let_go() -> None:
    processes = [Forked(lambda: [bytes(MANY)]) for _ in range(3)]

    for process in processes:
        process.close()

    assert all(map(ended, processes))


def test_without_room_for_a_process_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)

    assert said_by(Forked(lambda: [b"never"])) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_process_that_is_signalled_at_once_does_nothing_of_what_its_parent_would(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is signalled as a whole: the parent's handlers must not run in what was only forked to work."""
    fork, wrong = os.fork, tmp_path / "wrong"

    def signalled() -> int:
        process = fork()
        if process == 0:
            os.kill(os.getpid(), number)
        return process

    def handler(*_: object) -> None:
        wrong.touch()

    before = signal.signal(number, handler)
    monkeypatch.setattr(os, "fork", signalled)
    try:
        found = said_by(Forked(lambda: [b"said"]))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(number, before)

    assert found is None
    assert not wrong.exists()
    assert number not in mask


def test_a_process_with_threads_forks_without_a_warning_and_keeps_its_signals() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert said_by(Forked(lambda: [b"said"])) == bytearray(b"said")
    finally:
        stop.set()
        thread.join()

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("cores", "units", "processes"),
    [(1, 10**9, 1), (4, 0, 1), (4, 9, 1), (4, 25, 2), (4, 10**9, 4), (64, 10**9, 16)],
)
def test_work_is_shared_among_as_many_as_there_are_cores_and_is_work_enough(
    cores: int, units: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked, "_cores", lambda: cores)

    assert worth(units, 10) == processes


def saying_nothing() -> Iterator[bytes]:
    time.sleep(600)
    yield b""


def test_a_process_that_says_nothing_is_ended_when_it_is_let_go() -> None:
    process = Forked(saying_nothing)

    process.close()

    assert ended(process)


def test_what_is_waited_for_stops_when_its_owner_says_so() -> None:
    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    with closing(Forked(saying_nothing)) as process, interruptible(check), pytest.raises(Stop):
        process.rest()


def test_a_process_does_not_ask_the_owner_of_its_parents_work() -> None:
    def work() -> Iterator[bytes]:
        checkpoint()
        yield b"said"

    parent = os.getpid()
    with interruptible(lambda: os._exit(1) if os.getpid() != parent else None):
        assert said_by(Forked(work)) == bytearray(b"said")
