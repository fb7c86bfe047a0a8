"""Laws of the plan: nothing is forgotten, nothing is too large, and anyone computes the same."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.plan import Batch, pack
from tests.property.strategies import planned_objects, thorough

max_objects = st.integers(1, 12)
max_bytes = st.integers(1, 200)


def plan(objects: dict[str, int], max_objects: int, max_bytes: int) -> list[Batch]:
    return list(pack(objects, max_objects=max_objects, max_bytes=max_bytes))


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_every_object_is_in_exactly_one_batch_with_its_size(
    objects: dict[str, int], max_objects: int, max_bytes: int
) -> None:
    batches = plan(objects, max_objects, max_bytes)

    packed = [item for batch in batches for item in batch.objects.items()]

    assert len(packed) == len(objects)
    assert dict(packed) == objects
    assert sum(batch.size_bytes for batch in batches) == sum(objects.values())


@thorough
@given(planned_objects, max_objects, max_bytes)
@example({"0" * 64: 7, "1" * 64: 0}, 5, 6)
def test_batches_keep_to_the_limits_and_what_is_larger_travels_alone(
    objects: dict[str, int], max_objects: int, max_bytes: int
) -> None:
    for batch in plan(objects, max_objects, max_bytes):
        assert 1 <= len(batch.objects) <= max_objects
        assert batch.size_bytes <= max_bytes or len(batch.objects) == 1


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_batches_are_numbered_from_zero_and_cover_ranges_that_do_not_overlap(
    objects: dict[str, int], max_objects: int, max_bytes: int
) -> None:
    """An object that travels alone because of its size may lie inside the range of the batch around it."""
    batches = plan(objects, max_objects, max_bytes)
    ranges = [batch for batch in batches if batch.size_bytes <= max_bytes]

    assert [batch.number for batch in batches] == list(range(len(batches)))
    assert all(list(batch.objects) == sorted(batch.objects) for batch in batches)
    assert all(max(one.objects) < min(next_.objects) for one, next_ in pairwise(ranges))


@thorough
@given(planned_objects, max_objects, max_bytes, st.randoms(use_true_random=False))
def test_the_plan_depends_on_the_objects_and_not_on_their_order(
    objects: dict[str, int], max_objects: int, max_bytes: int, random_: random.Random
) -> None:
    items = list(objects.items())
    random_.shuffle(items)

    assert plan(dict(items), max_objects, max_bytes) == plan(objects, max_objects, max_bytes)


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_no_two_neighbours_would_have_fitted_into_one_batch(
    objects: dict[str, int], max_objects: int, max_bytes: int
) -> None:
    """So there are at most about twice as many batches as the limits demand, however the sizes fall."""
    ranges = [batch for batch in plan(objects, max_objects, max_bytes) if batch.size_bytes <= max_bytes]

    for one, next_ in pairwise(ranges):
        first = next(iter(next_.objects.values()))
        assert len(one.objects) == max_objects or one.size_bytes + first > max_bytes
