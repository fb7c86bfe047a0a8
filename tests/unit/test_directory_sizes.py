"""The lengths of many files, asked by threads or processes: what one would say, whatever becomes of the others."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
from array import array
from pathlib import Path

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, Key, object_key
from snapferry.stores.backends.directory import sizes
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.directory.paths.root import Root
from snapferry.stores.backends.directory.paths.rules import DirectoryRules
from snapferry.stores.backends.directory.sizes import ABSENT, NO_FILE, lengths
from snapferry.stores.bulk import forked
from snapferry.stores.errors import StoreError, StoreFault
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.interruption import interruptible

COUNT = 400

# The share of keys whose file is there, is absent, or is something else.
EVERY_THIRD, STRANGE = 3, 211


@pytest.fixture(autouse=True)
def few_keys_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "KEYS_FOR_A_PROCESS", 50)
    monkeypatch.setattr(sizes, "KEYS_FOR_A_THREAD", 50)
    monkeypatch.setattr(sizes, "KEYS_AT_ONCE", 20)
    monkeypatch.setattr(forked, "_cores", lambda: 3)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extension, processes share the keys."""
    monkeypatch.setattr(extension, "_extension", None)


@pytest.fixture(params=["compiled", "uncompiled"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "uncompiled":
        monkeypatch.setattr(extension, "_extension", None)


@pytest.fixture
def keys(tmp_path: Path) -> list[Key]:
    """Keys of a store, sorted: some have files of different lengths, some have none, and one has a folder."""
    found = sorted(
        [*(object_key(digest(b"%d" % number)) for number in range(COUNT)), object_key(EMPTY_ADDRESS)]
    )
    for number, key in enumerate(found):
        path = tmp_path / key
        if number == STRANGE:
            path.mkdir(parents=True)
        elif number % EVERY_THIRD:
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(number))
    return found


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(str(tmp_path), DirectoryRules())


def expected(keys: list[str]) -> list[int]:
    found = [number if number % EVERY_THIRD else ABSENT for number in range(len(keys))]
    found[STRANGE] = NO_FILE
    return found


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were forked."""
    found: list[int] = []
    fork = os.fork

    def counted() -> int:
        process = fork()
        if process:
            found.append(process)
        return process

    monkeypatch.setattr(os, "fork", counted)
    return found


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.usefixtures("uncompiled")
def test_several_processes_say_what_one_would(root: Root, keys: list[str], forks: list[int]) -> None:
    assert list(lengths(root, keys)) == expected(keys)
    assert len(forks) == 2
    assert all(map(ended, forks))


@pytest.mark.usefixtures("either")
def test_few_keys_are_worth_no_process(root: Root, keys: list[str], forks: list[int]) -> None:
    assert list(lengths(root, keys[:99])) == expected(keys)[:99]
    assert forks == []


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("cores", [1, 2, 16])
def test_each_key_is_asked_for_once_however_many_cores_there_are(
    root: Root, keys: list[str], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked, "_cores", lambda: cores)
    monkeypatch.setattr(sizes, "KEYS_FOR_A_PROCESS", 1)
    monkeypatch.setattr(sizes, "KEYS_FOR_A_THREAD", 1)

    for count in (1, 2, 15, 16, 17, len(keys)):
        assert list(lengths(root, keys[:count])) == expected(keys)[:count]


class Asks:
    """An extension that leaves each key to Python, once so many threads ask at the same time."""

    ASK = -3

    def __init__(self, threads: int) -> None:
        self._together = threading.Barrier(threads, timeout=60)
        self._calls = itertools.count(1)

    def lengths(self, _: int, keys: list[str]) -> bytes:
        if next(self._calls) <= self._together.parties:
            self._together.wait()
        return array("q", [self.ASK] * len(keys)).tobytes()


def test_threads_ask_at_the_same_time_and_none_is_left_behind(
    root: Root, keys: list[str], forks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "_extension", Asks(threads=3))

    assert list(lengths(root, keys)) == expected(keys)
    assert forks == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lengths")]


def test_without_memory_for_a_thread_this_one_asks_for_all(
    root: Root, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(extension, "_extension", Asks(threads=1))
    monkeypatch.setattr(threading.Thread, "start", full)

    assert list(lengths(root, keys)) == expected(keys)


def test_threads_stop_when_the_owner_says_so(
    root: Root, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    monkeypatch.setattr(extension, "_extension", Asks(threads=1))

    with interruptible(stop), pytest.raises(Stopped):
        lengths(root, keys)


def dies(*_: object) -> list[bytes]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.usefixtures("uncompiled")
def test_where_a_process_does_not_answer_its_part_is_asked_for_again(
    root: Root, keys: list[str], monkeypatch: pytest.MonkeyPatch, forks: list[int]
) -> None:
    monkeypatch.setattr(sizes, "_answers", dies)

    assert list(lengths(root, keys)) == expected(keys)
    assert len(forks) == 2
    assert all(map(ended, forks))


@pytest.mark.usefixtures("uncompiled")
def test_where_there_is_no_pipe_for_another_process_none_is_left_behind(
    root: Root, keys: list[str], monkeypatch: pytest.MonkeyPatch, forks: list[int]
) -> None:
    pipe = os.pipe

    def few() -> tuple[int, int]:
        if forks:
            raise OSError(errno.EMFILE, "Too many open files")
        return pipe()

    monkeypatch.setattr(os, "pipe", few)

    with pytest.raises(OSError, match="Too many"):
        lengths(root, keys)

    assert len(forks) == 1
    assert all(map(ended, forks))


@pytest.mark.usefixtures("uncompiled")
def test_without_room_for_a_process_one_asks_for_all(
    root: Root, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)

    assert list(lengths(root, keys)) == expected(keys)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("number", [0, COUNT])
def test_an_error_of_any_process_is_raised_and_leaves_none_behind(
    tmp_path: Path, keys: list[str], number: int, forks: list[int]
) -> None:
    """A file in the place of a shard: nothing can be said of what is below it."""
    shard = tmp_path.joinpath(*Path(keys[number]).parts[:3])
    if shard.exists():
        shard.rename(tmp_path / "elsewhere")
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_bytes(b"")
    backend = DirectoryBackend(str(tmp_path))

    with pytest.raises(StoreError) as raised:
        backend.sizes(keys)

    assert isinstance(raised.value, StoreFault)
    assert raised.value.subject == keys[number]
    assert all(map(ended, forks))


def test_what_is_no_file_is_named_among_many(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(StoreFault, match="not a regular file") as raised:
        DirectoryBackend(str(tmp_path)).sizes(keys)

    assert raised.value.subject == keys[STRANGE]
