"""Which batches go first, and where kombu keeps them."""

from __future__ import annotations

import re

import pytest
from kombu.transport.redis import Channel

from snapferry.workers.queues import COPY_QUEUE, NAME, STEPS, Priority, copy_queue, lists, moves, step


def test_the_first_batches_of_a_job_go_before_the_later_ones_of_any_other_of_its_priority() -> None:
    steps = [step(Priority.NORMAL, number) for number in (0, 7, 8, 63, 64, 10**9)]

    assert steps == sorted(steps)
    assert len(set(steps)) == 3
    assert (steps[0], steps[2], steps[4]) == (steps[1], steps[3], steps[5])


def test_a_higher_priority_goes_before_a_lower_one_whatever_the_batch() -> None:
    high, normal, low = ([step(one, number) for number in (0, 10, 10**6)] for one in Priority)

    assert max(high) < min(normal) <= max(normal) < min(low)
    assert set(high + normal + low) == set(STEPS)


@pytest.mark.parametrize("priority", Priority)
def test_batches_of_another_priority_are_moved_to_where_the_like_of_this_one_are(priority: Priority) -> None:
    found = lists("q")
    expected = {
        (found[step(other, number)], found[step(priority, number)])
        for other in Priority
        if other is not priority
        for number in (0, 10, 100)
    }

    assert set(moves("q", priority)) == expected
    assert len(moves("q", priority)) == 6


def test_lists_are_where_kombu_puts_messages() -> None:
    channel = object.__new__(Channel)
    channel.priority_steps = list(STEPS)

    assert lists(COPY_QUEUE) == [channel._q_for_pri(COPY_QUEUE, one) for one in STEPS]


def test_a_queue_is_called_by_its_name() -> None:
    assert (copy_queue(""), copy_queue("slow-tape")) == ("snapferry.copy", "snapferry.copy.slow-tape")


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a b", "a.b", "a" * 41, "a\n", "é"])
def test_a_name_of_a_queue_is_plain(name: str) -> None:
    assert not re.fullmatch(NAME, name)
    assert re.fullmatch(NAME, "a" * 40)
