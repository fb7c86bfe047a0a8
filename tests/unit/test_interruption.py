"""Interruption reaches the code below, across threads that carry the context, and ends with its block."""

from __future__ import annotations

import threading
from contextvars import copy_context

import pytest

from snapferry.stores.runtime.interruption import checkpoint, grace, interruptible, is_owners


class Stop(Exception):
    pass


def stop():
    raise Stop


def test_without_an_owner_a_checkpoint_does_nothing():
    checkpoint()


def test_the_innermost_owner_is_asked_and_only_inside_of_its_block():
    calls = []
    with interruptible(lambda: calls.append("outer")):
        checkpoint()
        with interruptible(stop), pytest.raises(Stop):
            checkpoint()
        checkpoint()
    checkpoint()
    assert calls == ["outer", "outer"]


class NoOrdinaryStop(BaseException):
    pass


@pytest.mark.parametrize("kind", [Stop, NoOrdinaryStop])
def test_what_cleans_up_goes_on_after_a_stop_of_any_kind_until_its_time_is_over(kind):
    def check():
        raise kind

    late = TimeoutError()
    with interruptible(check):
        with grace(60, late):
            checkpoint()
        with grace(0, late), pytest.raises(TimeoutError):
            checkpoint()
        with pytest.raises(kind) as caught:
            checkpoint()
    assert is_owners(caught.value)


def test_a_thread_is_interrupted_if_it_carries_the_context():
    raised = []

    def work():
        try:
            checkpoint()
        except Stop:
            raised.append(True)
        else:
            raised.append(False)

    with interruptible(stop):
        threads = [threading.Thread(target=copy_context().run, args=(work,)), threading.Thread(target=work)]
        for thread in threads:
            thread.start()
            thread.join()
    assert raised == [True, False]
