"""Laws of the plan: nothing is forgotten, nothing is too large, and anyone computes the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.orchestrator.planning import batches as batches_module
from snapferry.orchestrator.planning import gather_numpy, plan_file, planner
from snapferry.orchestrator.planning.batches import Batch, cut, pack_batches
from snapferry.orchestrator.planning.plan import Plan, SnapshotPlan
from snapferry.orchestrator.planning.planner import LARGEST_SUM, QUESTIONS_PER_OBJECT, Planner
from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.hashing import digest
from tests.property.strategies import planned_objects, thorough

max_objects = st.integers(1, 12)
max_bytes = st.integers(1, 200)

Snapshots = list[dict[Address, int]]

# So few that snapshots have many in common.
ADDRESSES = [digest(b"%d" % number) for number in range(30)]
A, B, C, D = ADDRESSES[:4]
contents = st.dictionaries(st.sampled_from(ADDRESSES), st.integers(0, 120), max_size=12)


@st.composite
def histories(draw: st.DrawFn) -> Snapshots:
    """Return snapshots, many of them another one with something more, less, or of another advisory size."""
    found: Snapshots = []
    for _ in range(draw(st.integers(0, 10))):
        snapshot = draw(contents)
        varied = draw(st.booleans())
        if found and varied:
            earlier = draw(st.sampled_from(found))
            left = draw(st.sets(st.sampled_from(sorted(earlier)))) if earlier else set()
            snapshot = {
                **{a: earlier[a] for a in earlier if a not in left},
                **dict(list(snapshot.items())[:2]),
            }
        found.append(snapshot)
    return found


def plan_of(
    snapshots: Snapshots, *, max_objects: int = 3, max_bytes: int = 100, only: set[Address] | None = None
) -> Plan:
    planner = Planner(
        max_objects=max_objects, max_bytes=max_bytes, only=None if only is None else AddressSet(only)
    )
    for index, objects in enumerate(snapshots):
        planner.add(index, objects)
    return planner.finish()


def batches_of(plan: Plan) -> list[Batch]:
    return [plan.batch(number) for number in range(plan.batches)]


def first_to_name(snapshots: Snapshots) -> dict[Address, int]:
    """Return address -> the first snapshot that names it."""
    found: dict[Address, int] = {}
    for index, objects in enumerate(snapshots):
        for address in objects:
            found.setdefault(address, index)
    return found


@contextmanager
def tables_from(objects: int) -> Iterator[None]:
    """Let planners go on with tables from so many objects on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner, "MANY", objects)
        yield


def everything(plan: Plan) -> tuple[object, ...]:
    """Return all that a plan says."""
    owners = [plan.owner(position) for position in range(plan.objects)]
    return batches_of(plan), plan.groups, plan.snapshots, owners, plan.size_bytes


def plan(objects: dict[Address, int], max_objects: int, max_bytes: int) -> list[Batch]:
    return list(pack_batches(objects, max_objects=max_objects, max_bytes=max_bytes))


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_every_object_is_in_exactly_one_batch_with_its_size(
    objects: dict[Address, int], max_objects: int, max_bytes: int
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
    objects: dict[Address, int], max_objects: int, max_bytes: int
) -> None:
    for batch in plan(objects, max_objects, max_bytes):
        assert 1 <= len(batch.objects) <= max_objects
        assert batch.size_bytes <= max_bytes or len(batch.objects) == 1


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_batches_are_numbered_from_zero_and_cover_ranges_that_do_not_overlap(
    objects: dict[Address, int], max_objects: int, max_bytes: int
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
    objects: dict[Address, int], max_objects: int, max_bytes: int, random_: random.Random
) -> None:
    items = list(objects.items())
    random_.shuffle(items)

    assert plan(dict(items), max_objects, max_bytes) == plan(objects, max_objects, max_bytes)


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_no_two_neighbours_would_have_fitted_into_one_batch(
    objects: dict[Address, int], max_objects: int, max_bytes: int
) -> None:
    """So there are at most about twice as many batches as the limits demand, however the sizes fall."""
    ranges = [batch for batch in plan(objects, max_objects, max_bytes) if batch.size_bytes <= max_bytes]

    for one, next_ in pairwise(ranges):
        first = next(iter(next_.objects.values()))
        assert len(one.objects) == max_objects or one.size_bytes + first > max_bytes


@pytest.mark.parametrize(
    ("objects", "largest", "batches"),
    [(1000, 1000, 1), (1001, 1000, 2), (64_000, 1000, 64), (96_000, 1500, 64), (200_000, 2500, 80)],
)
def test_batches_grow_with_their_group_up_to_the_limit(objects: int, largest: int, batches: int) -> None:
    found = plan({Address(f"{number:064x}"): 1 for number in range(objects)}, 2500, 10**9)

    assert len(found) == batches
    assert max(len(batch.objects) for batch in found) == largest


@given(
    st.integers(0, 500),
    max_objects,
    st.integers(1, 70),
    st.integers(1, 20),
    st.lists(st.integers(0, 300), max_size=3),
)
def test_batches_that_are_cut_evenly_differ_by_little_unless_their_bytes_limit_them(
    objects: int, largest: int, batches: int, few: int, sizes: list[int]
) -> None:
    with patch.object(batches_module, "FEW_OBJECTS", few):
        ranges = list(cut([1] * objects, largest, 10**6, batches, evenly=True))
        before = list(cut([1] * objects, largest, 10**6, batches))
        limited = list(cut([1] * objects + sizes, largest, 100, batches, evenly=True))
    lengths = [end - first for first, end in ranges]
    assert [at for first, end in ranges for at in range(first, end)] == list(range(objects))
    assert max(lengths, default=0) <= largest
    assert len(ranges) <= len(before)
    # The last one has less by at most one object for each of the others.
    assert all(length == lengths[0] for length in lengths[:-1])
    assert not lengths or lengths[0] - lengths[-1] < len(lengths)
    assert [at for first, end in limited for at in range(first, end)] == list(range(objects + len(sizes)))
    for first, end in limited:
        assert sum(([1] * objects + sizes)[first:end]) <= 100 or end - first == 1


@thorough
@given(planned_objects, max_objects, max_bytes)
def test_places_follow_the_order_of_the_batches(
    objects: dict[Address, int], max_objects: int, max_bytes: int
) -> None:
    place = 0
    for batch in plan(objects, max_objects, max_bytes):
        assert batch.positions == (place,)
        place += len(batch.objects)
    assert place == len(objects)


@thorough
@given(histories(), max_objects, max_bytes)
def test_every_object_of_every_snapshot_is_in_exactly_one_batch_by_the_first_one_that_names_it(
    snapshots: Snapshots, max_objects: int, max_bytes: int
) -> None:
    """Its size is what that snapshot says; another may say otherwise."""
    found = plan_of(snapshots, max_objects=max_objects, max_bytes=max_bytes)
    owners = first_to_name(snapshots)

    packed = [item for batch in batches_of(found) for item in batch.objects.items()]

    assert len(packed) == len(owners) == found.objects
    assert dict(packed) == {address: snapshots[index][address] for address, index in owners.items()}
    assert {found.address(at): found.owner(at) for at in range(found.objects)} == owners
    assert found.size_bytes == sum(size for _, size in packed)


@thorough
@given(histories(), max_objects, max_bytes)
def test_batches_of_a_plan_keep_to_the_limits_and_each_is_a_sorted_range(
    snapshots: Snapshots, max_objects: int, max_bytes: int
) -> None:
    for batch in batches_of(plan_of(snapshots, max_objects=max_objects, max_bytes=max_bytes)):
        assert 1 <= len(batch.objects) <= max_objects
        assert batch.size_bytes <= max_bytes or len(batch.objects) == 1
        assert list(batch.objects) == sorted(batch.objects)


@thorough
@given(histories())
def test_groups_are_neighbours_and_every_snapshot_is_in_one(snapshots: Snapshots) -> None:
    groups = plan_of(snapshots).groups

    assert [index for group in groups for index in group.snapshots] == list(range(len(snapshots)))
    assert [group.number for group in groups] == list(range(len(groups)))
    assert all(group.snapshots for group in groups)


@thorough
@given(histories())
def test_the_batches_of_a_group_hold_exactly_what_its_snapshots_bring(snapshots: Snapshots) -> None:
    found = plan_of(snapshots)
    owners = first_to_name(snapshots)

    place = number = 0
    for group in found.groups:
        assert (group.batches.start, group.positions.start) == (number, place)
        number, place = group.batches.stop, group.positions.stop
        brought = {address for address, owner in owners.items() if owner in group.snapshots}
        assert {found.address(at) for at in group.positions} == brought
        assert {a for number in group.batches for a in found.batch(number).objects} == brought
        assert group.named == len(set().union(*(snapshots[index] for index in group.snapshots)))
    assert (number, place) == (found.batches, found.objects)


@thorough
@given(histories())
@example([dict.fromkeys(ADDRESSES, 1)] * 5)
def test_all_the_questions_before_publishing_are_about_twice_as_many_as_there_are_objects(
    snapshots: Snapshots,
) -> None:
    found = plan_of(snapshots)

    asked = [group.named for group in found.groups]

    assert sum(asked[:-1]) <= QUESTIONS_PER_OBJECT * found.objects
    assert sum(asked) <= QUESTIONS_PER_OBJECT * found.objects + (asked[-1] if asked else 0)


@thorough
@given(histories())
def test_a_group_ends_as_soon_as_it_may(snapshots: Snapshots) -> None:
    """So no snapshot waits for another without need."""
    found = plan_of(snapshots)
    owners = first_to_name(snapshots)

    for group in found.groups:
        asked: set[Address] = set()
        for index in group.snapshots:
            asked |= snapshots[index].keys()
            members = range(group.snapshots[0], index + 1)
            brought = sum(owner in members for owner in owners.values())
            enough = len(asked) <= QUESTIONS_PER_OBJECT * brought
            assert enough == (index == group.snapshots[-1]) or group is found.groups[-1]


@thorough
@given(histories())
def test_snapshots_that_share_nothing_are_groups_of_their_own(snapshots: Snapshots) -> None:
    owners = first_to_name(snapshots)
    apart = [{a: s for a, s in found.items() if owners[a] == index} for index, found in enumerate(snapshots)]

    groups = plan_of(apart).groups

    assert [group.snapshots for group in groups] == [(index,) for index in range(len(apart))]
    assert all(group.named == len(group.positions) for group in groups)


@thorough
@given(histories())
def test_a_snapshot_counts_what_it_names_and_how_much_of_it_an_earlier_one_brings(
    snapshots: Snapshots,
) -> None:
    owners = first_to_name(snapshots)

    assert plan_of(snapshots).snapshots == {
        index: SnapshotPlan(
            len(found), sum(found.values()), sum(owners[address] < index for address in found)
        )
        for index, found in enumerate(snapshots)
    }


@thorough
@given(histories(), max_objects, max_bytes, st.randoms(use_true_random=False))
def test_anyone_computes_the_same_plan_whatever_the_order_within_a_manifest(
    snapshots: Snapshots, max_objects: int, max_bytes: int, random_: random.Random
) -> None:
    shuffled = [dict(random_.sample(sorted(found.items()), len(found))) for found in snapshots]
    one, other = (
        plan_of(each, max_objects=max_objects, max_bytes=max_bytes) for each in (shuffled, snapshots)
    )

    assert everything(one) == everything(other)


@thorough
@given(histories(), st.sets(st.sampled_from(ADDRESSES)))
def test_a_plan_of_some_objects_is_that_of_snapshots_that_have_only_those(
    snapshots: Snapshots, only: set[Address]
) -> None:
    """But a snapshot's own figures are of all of it, and all of it is asked for before it is published."""
    restricted = [{a: size for a, size in found.items() if a in only} for found in snapshots]
    owners = first_to_name(restricted)

    found = plan_of(snapshots, only=only)

    packed = {a: size for batch in batches_of(found) for a, size in batch.objects.items()}
    assert packed == {address: restricted[index][address] for address, index in owners.items()}
    assert {found.address(at): found.owner(at) for at in range(found.objects)} == owners
    assert [index for group in found.groups for index in group.snapshots] == list(range(len(snapshots)))
    for group in found.groups:
        assert group.named == len(set().union(*(snapshots[index] for index in group.snapshots)))
    for index, planned in found.snapshots.items():
        mine = sum(owner == index for owner in owners.values())
        assert (planned.objects, planned.shared) == (len(snapshots[index]), len(snapshots[index]) - mine)


def test_a_plan_of_all_objects_is_the_plan() -> None:
    snapshots = [{A: 1, B: 2}, {B: 2, C: 3}]

    assert everything(plan_of(snapshots, only={A, B, C, D})) == everything(plan_of(snapshots))


@thorough
@given(histories(), st.integers(0, 40), st.integers(1, 9))
def test_windows_cover_what_is_left_each_batch_once_and_none_reaches_into_another_group(
    snapshots: Snapshots, first: int, most: int
) -> None:
    found = plan_of(snapshots, max_objects=1)
    first = min(first, found.batches)

    windows = list(found.windows(first, most))

    assert [number for window in windows for number in window] == list(range(first, found.batches))
    assert all(1 <= len(window) <= most for window in windows)
    for window in windows:
        assert (
            sum(window.start in group.batches and window[-1] in group.batches for group in found.groups) == 1
        )
    for one, next_ in pairwise(windows):
        group = next(group for group in found.groups if one.start in group.batches)
        assert len(one) == most or one.stop == group.batches.stop == next_.start


@thorough
@given(histories(), st.sets(st.sampled_from(ADDRESSES)))
def test_an_objects_place_is_found_by_its_address_and_the_other_way_round(
    snapshots: Snapshots, wanted: set[Address]
) -> None:
    found = plan_of(snapshots)
    owners = first_to_name(snapshots)

    places = found.positions(wanted)

    assert places.keys() == wanted & owners.keys()
    assert all(found.address(place) == address for address, place in places.items())
    assert all(found.size(place) == snapshots[owners[a]][a] for a, place in places.items())
    for batch in batches_of(found):
        (first,) = batch.positions
        assert [found.address(first + at) for at in range(len(batch.objects))] == list(batch.objects)


def test_snapshots_without_any_object_are_planned_and_have_no_batch() -> None:
    found = plan_of([{}, {A: 1}, {}])

    assert [(group.snapshots, group.batches, group.named) for group in found.groups] == [
        ((0,), range(0), 0),
        ((1,), range(1), 1),
        ((2,), range(1, 1), 0),
    ]
    assert found.snapshots[2] == SnapshotPlan(0, 0, 0)


def test_snapshots_that_are_all_the_same_are_asked_for_once_together() -> None:
    found = plan_of([{A: 1, B: 2}] * 5)

    assert [(group.snapshots, group.named) for group in found.groups] == [((0,), 2), ((1, 2, 3, 4), 2)]
    assert (found.objects, found.batches) == (2, 1)
    assert found.groups[1].batches == range(1, 1)
    assert found.snapshots[4] == SnapshotPlan(2, 3, 2)


def test_nothing_is_a_plan_too() -> None:
    found = plan_of([])

    assert (found.objects, found.size_bytes, found.batches, found.groups) == (0, 0, 0, [])
    assert list(found.windows(0, 9)) == []
    assert found.positions([A]) == {}


def test_snapshots_keep_the_indexes_they_are_added_with() -> None:
    """Those that are trusted or cannot be read are never added."""
    planner = Planner(max_objects=3, max_bytes=100)
    planner.add(2, {A: 1})
    planner.add(7, {A: 1, B: 1, C: 1})
    found = planner.finish()

    assert [group.snapshots for group in found.groups] == [(2,), (7,)]
    assert found.snapshots.keys() == {2, 7}
    assert [found.owner(at) for at in range(found.objects)] == [2, 7, 7]


def test_sizes_that_cannot_be_true_are_cut_so_that_counters_of_64_bits_hold_their_sum() -> None:
    found = plan_of([{A: 2**64 - 1, B: 2**64 - 1, C: 5}])

    assert found.size_bytes <= LARGEST_SUM
    assert sorted(found.sizes) == [5, LARGEST_SUM // 3, LARGEST_SUM // 3]


def test_sizes_that_may_be_true_are_left_as_they_are() -> None:
    found = plan_of([{A: LARGEST_SUM - 5, B: 5}])

    assert sorted(found.sizes) == [5, LARGEST_SUM - 5]


def test_a_plan_costs_45_bytes_an_object() -> None:
    """Asked of what holds them, for a plan large enough for the rest not to count."""
    many = {digest(b"%d" % number): number for number in range(20_000)}
    found = plan_of([many], max_objects=1000, max_bytes=10**9)

    held = (found.digests, found.sizes, found.owners, found.firsts)

    assert sum(memoryview(part).nbytes for part in held) < 45 * len(many)


@thorough
@given(
    histories(),
    max_objects,
    max_bytes,
    st.integers(0, 40),
    st.integers(0, 40),
    st.none() | st.sets(st.sampled_from(ADDRESSES)),
)
@example([{A: 1}, {A: 1, B: 7}, {}, {C: 500, A: 2}], 2, 100, 0, 9, None)
@example([{}], 1, 1, 0, 0, None)
def test_a_plan_made_in_tables_is_the_same(
    snapshots: Snapshots, max_objects: int, max_bytes: int, many: int, recent: int, only: set[Address] | None
) -> None:
    """From whichever object on, also in the middle of a group, and with however many addresses beside the tables."""
    usual = plan_of(snapshots, max_objects=max_objects, max_bytes=max_bytes, only=only)

    with tables_from(many), patch.object(gather_numpy, "MOST_RECENT", recent):
        in_tables = plan_of(snapshots, max_objects=max_objects, max_bytes=max_bytes, only=only)

    assert everything(in_tables) == everything(usual)


@thorough
@given(histories(), max_objects, max_bytes)
def test_a_plan_comes_back_from_its_file_as_it_was(
    snapshots: Snapshots, max_objects: int, max_bytes: int
) -> None:
    made = plan_of(snapshots, max_objects=max_objects, max_bytes=max_bytes)

    mapped = plan_file.save("law", "0" * 64, made)
    loaded = plan_file.load("law", "0" * 64)
    plan_file.forget("law")

    assert loaded is not None
    assert everything(mapped) == everything(loaded) == everything(made)
    assert isinstance(mapped.sizes, memoryview)


@thorough
@given(snapshots=histories(), tables=st.booleans())
def test_closed_groups_stay_as_they_are_and_a_takeover_makes_them_again(
    snapshots: Snapshots, *, tables: bool
) -> None:
    """Their batches are queued while later manifests are read."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(planner, "MANY", 10 if tables else 10**9)
        growing = Planner(max_objects=3, max_bytes=100)
        seen = []
        for index, objects in enumerate(snapshots):
            growing.add(index, objects)
            if growing.closed:
                plan = growing.plan
                seen.append((index, list(plan.groups), batches_of(plan), plan.objects, plan.size_bytes))
        whole = growing.finish()

        for index, groups, batches, objects_of, size_bytes in seen:
            assert groups == whole.groups[: len(groups)]
            assert batches == batches_of(whole)[: len(batches)]
            assert (objects_of, size_bytes) <= (whole.objects, whole.size_bytes)
            again = plan_of(snapshots[: index + 1])
            assert (again.groups, batches_of(again)) == (groups, batches)


def test_sizes_that_cannot_be_true_change_no_closed_group() -> None:
    found = plan_of([{A: LARGEST_SUM - 5}, {B: 2**64 - 1, C: 3}])

    assert found.size_bytes <= LARGEST_SUM
    assert list(found.sizes)[:1] == [LARGEST_SUM - 5]
    assert sorted(found.sizes)[:2] == [2, 2]
