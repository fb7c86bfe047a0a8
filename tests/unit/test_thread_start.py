"""Threads that cannot begin."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from snapferry.workers.lifecycle import process_setup, thread_start


class Broken(threading.Thread):
    """Ends as a thread does for which the interpreter has no memory: before it has said that it has begun."""

    def _bootstrap(self) -> None:
        raise MemoryError


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_start, "SLICE_S", 0.01)
    monkeypatch.setattr(threading.Thread, "start", thread_start._start)
    process_setup.set_up_process()
    process_setup.set_up_process()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_that_ends_before_it_has_begun_raises_where_it_is_started() -> None:
    broken = Broken(name="broken")

    with pytest.raises(RuntimeError, match="can't start new thread"):
        broken.start()

    assert not broken.is_alive()
    assert broken not in threading.enumerate()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_executor_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(threading.Thread, "_bootstrap", Broken._bootstrap)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)


def test_other_threads_start_as_ever() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.set)
    thread.start()
    thread.join()
    assert done.is_set()
    with pytest.raises(RuntimeError, match="only be started once"):
        thread.start()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(abs, range(-9, 0))) == [*range(9, 0, -1)]
