"""The trouble of a whole store is told from that of one object: real directories, ports that refuse, a real Redis."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from snapferry.stores.access import TRUSTED
from snapferry.stores.address import Address, object_key
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    ObjectMissing,
    StoreError,
    StoreFault,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)
from snapferry.stores.hashing import digest
from snapferry.workers.messages import StoreRef
from snapferry.workers.outcome import Failure
from snapferry.workers.reachability import store_check
from snapferry.workers.reachability.giving_up import RETURN_S, give_up_reason
from snapferry.workers.reachability.outage import MANY_DENIED, MANY_FAILED, StoreWatch, Unreachable
from snapferry.workers.reachability.sides import StoreSide
from snapferry.workers.reachability.store_check import check
from snapferry.workers.reachability.store_problems import (
    Kind,
    StoreProblem,
    StoreProblems,
    pause_before_check,
)
from tests.opening import open_store
from tests.servers import free_port

BYTES = b"bytes"
ADDRESS = digest(BYTES)


@pytest.fixture
def problems(redis_url: str) -> Iterator[StoreProblems]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield StoreProblems(client)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[StoreSide, StoreSide]:
    for name in ("a", "b"):
        (tmp_path / name / ".objects").mkdir(parents=True)
    return (
        StoreSide(StoreRef(url=str(tmp_path / "a")), writing=False),
        StoreSide(StoreRef(url=str(tmp_path / "b")), writing=True),
    )


def trouble_of(problems: StoreProblems, sides: tuple[StoreSide, StoreSide], objects: int = 100) -> StoreWatch:
    found = StoreWatch(problems, "worker@here", sides, objects, TRUSTED)
    stores = [open_store(side.ref.url, create=False) for side in sides]
    found.opened(stores[0], stores[1])
    return found


def unavailable(side: StoreSide) -> StoreError:
    return StoreUnavailable(f"file://{side.ref.url}", "address", "no answer")


def succeed(trouble: StoreWatch, sides: tuple[StoreSide, StoreSide]) -> None:
    """Let an object be copied."""
    for side in sides:
        path = Path(side.ref.url) / object_key(ADDRESS)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BYTES)
    trouble.succeeded(ADDRESS, *(f"file://{side.ref.url}" for side in sides))


def test_an_object_in_trouble_at_a_store_that_answers_stops_nothing(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    trouble = trouble_of(problems, sides)
    label = f"file://{sides[0].ref.url}"

    for _ in range(MANY_FAILED - 1):
        trouble.failed(unavailable(sides[0]))
    succeed(trouble, sides)
    for _ in range(MANY_FAILED - 1):
        trouble.failed(unavailable(sides[0]))
    trouble.failed(StoreFull(label, "", "full"))
    trouble.failed(AccessDenied(label, "", "denied"))
    trouble.failed(StoreUnavailable("file:///of/nobody", "", "no answer"))
    trouble.raise_if_unreachable()


def test_a_store_that_answers_its_check_and_nothing_else_is_away(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    trouble = trouble_of(problems, sides)
    for _ in range(MANY_FAILED - 1):
        trouble.failed(unavailable(sides[1]))

    with pytest.raises(Unreachable) as raised:
        trouble.failed(unavailable(sides[1]))
    assert (raised.value.side, raised.value.kind) == (sides[1], Kind.AWAY)
    with pytest.raises(Unreachable):
        trouble.raise_if_unreachable()


@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
@pytest.mark.parametrize(("known", "kind"), [(False, Kind.REFUSED), (True, Kind.AWAY)])
def test_a_directory_that_is_gone_is_away_for_those_who_have_reached_it(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide], side: int, known: bool, kind: Kind
) -> None:
    trouble = trouble_of(problems, sides)
    if known:
        problems.record_copy(sides[side], "worker@here")
    shutil.rmtree(sides[side].ref.url)

    with pytest.raises(Unreachable) as raised:
        trouble.failed(unavailable(sides[side]))
    assert (raised.value.side, raised.value.kind) == (sides[side], kind)
    assert isinstance(raised.value.reason, StoreNotFound)


def test_a_source_directory_without_a_store_is_no_store_that_lacks_its_objects(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    missing = ObjectMissing(f"file://{sides[0].ref.url}", "", "the object is not in this store")
    (Path(sides[0].ref.url) / ".objects").rmdir()
    trouble = trouble_of(problems, sides, objects=2)
    trouble.failed(missing)
    with pytest.raises(Unreachable) as raised:
        trouble.failed(missing)
    assert "is it mounted here?" in raised.value.reason.detail

    (Path(sides[0].ref.url) / ".objects").mkdir()
    held = trouble_of(problems, sides, objects=2)
    for _ in range(2):
        held.failed(missing)
    held.raise_if_unreachable()


def test_refusals_of_everything_are_checked_and_those_of_some_objects_are_not(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    denied = AccessDenied(f"file://{sides[1].ref.url}", "", "denied")
    trouble = trouble_of(problems, sides)
    shutil.rmtree(sides[1].ref.url)

    for _ in range(MANY_DENIED - 1):
        trouble.failed(denied)
    with pytest.raises(Unreachable) as raised:
        trouble.failed(denied)
    assert raised.value.kind is Kind.REFUSED
    few = trouble_of(problems, sides, objects=2)
    few.failed(denied)
    with pytest.raises(Unreachable):
        few.failed(denied)


def test_what_refuses_connections_names_nobody_or_answers_nothing_is_unavailable(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_check, "CHECK_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for endpoint in (
            f"http://127.0.0.1:{free_port()}",
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            "http://no-such-host.invalid",
        ):
            side = StoreSide(StoreRef(url=f"s3://bucket?endpoint_url={endpoint}"), writing=True)
            assert isinstance(check(side, TRUSTED), StoreUnavailable), endpoint


def _emptied(root: Path) -> None:
    """Leave what is left of a mount point."""
    shutil.rmtree(root)
    root.mkdir()


LOST: dict[str, Callable[[Path], None]] = {"removed": shutil.rmtree, "not mounted": _emptied}


@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("error", [AccessDenied, ObjectMissing, StoreFault], ids=lambda kind: kind.__name__)
def test_a_store_that_is_lost_after_some_objects_fails_no_object(
    problems: StoreProblems,
    sides: tuple[StoreSide, StoreSide],
    side: int,
    lost: str,
    error: type[StoreError],
) -> None:
    root = Path(sides[side].ref.url)
    failure = error(f"file://{root}", "", "failed")
    trouble = trouble_of(problems, sides)
    succeed(trouble, sides)
    LOST[lost](root)
    # Too few to be checked at once.
    trouble.failed(failure)

    with pytest.raises(Unreachable) as raised:
        trouble.confirm([Failure.of(Address("a" * 64), failure)])
    assert (raised.value.side, raised.value.kind, raised.value.reached) == (sides[side], Kind.AWAY, True)
    many = trouble_of(problems, sides)
    many.succeeded(ADDRESS, f"file://{root}")
    with pytest.raises(Unreachable):
        for _ in range(MANY_DENIED):
            many.failed(failure)


def test_failures_of_objects_are_confirmed_by_a_store_that_answers(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    label = f"file://{sides[0].ref.url}"
    trouble = trouble_of(problems, sides)
    succeed(trouble, sides)
    denied, gone = AccessDenied(label, "", "denied"), ObjectMissing(label, "", "missing")
    for failure in (denied, gone):
        trouble.failed(failure)
    trouble.confirm([Failure.of(ADDRESS, failure) for failure in (denied, gone)])
    trouble.raise_if_unreachable()

    # What can only be the object's own fault is not worth a request.
    shutil.rmtree(sides[0].ref.url)
    own = trouble_of(problems, sides)
    wrong = IntegrityError(label, "", "wrong bytes")
    own.failed(wrong)
    own.confirm([Failure.of(ADDRESS, wrong)])


def test_a_check_that_began_before_an_object_failed_confirms_nothing(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    trouble = trouble_of(problems, sides)
    succeed(trouble, sides)
    trouble.failed(unavailable(sides[0]))
    shutil.rmtree(sides[0].ref.url)
    # The result of the check is still fresh.
    trouble.failed(unavailable(sides[0]))
    trouble.raise_if_unreachable()

    with pytest.raises(Unreachable):
        trouble.confirm([])


def test_a_destination_that_takes_no_object_any_more_refuses_this_worker(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    """A right may be withdrawn that no check asks for."""
    denied = AccessDenied(f"file://{sides[1].ref.url}", "", "denied")
    trouble = trouble_of(problems, sides)
    succeed(trouble, sides)
    for _ in range(MANY_DENIED - 1):
        trouble.failed(denied)
    succeed(trouble, sides)
    for _ in range(MANY_DENIED - 1):
        trouble.failed(denied)
    with pytest.raises(Unreachable) as raised:
        trouble.failed(denied)
    assert raised.value.kind is Kind.REFUSED

    # Objects of a source may have permissions of their own.
    source = trouble_of(problems, sides)
    for _ in range(2 * MANY_DENIED):
        source.failed(AccessDenied(f"file://{sides[0].ref.url}", "", "denied"))


def one(worker: str, kind: Kind, *, at: float = 100.0) -> StoreProblem:
    return StoreProblem(worker, "s3://b", kind.value, "StoreUnavailable", "no answer", since=at, at=at)


def test_a_job_is_given_up_when_all_are_refused_or_its_patience_is_over() -> None:
    away, refused = one("a", Kind.AWAY), one("b", Kind.REFUSED)

    assert give_up_reason(["a", "b"], {"a": [away], "b": [refused]}, 100, 10, 60) == ""
    away = one("a", Kind.AWAY, at=140)
    over = give_up_reason(["a", "b"], {"a": [away], "b": [refused]}, 100, 60, 60)
    assert over == "waited for 60 s: StoreUnavailable at s3://b: no answer (a, b)"
    hopeless = give_up_reason(["b"], {"b": [refused, away]}, 100, 0, 60)
    assert hopeless.startswith("no live worker can reach both stores: ")


def test_a_worker_that_had_reached_the_store_has_a_minute_to_reach_it_again() -> None:
    problem = one("b", Kind.REFUSED)
    assert give_up_reason(["b"], {"b": [problem]}, 100, 0, 3600)
    assert not give_up_reason(["b"], {"b": [problem]}, 100, RETURN_S - 1, 3600, reached=True)
    assert give_up_reason(["b"], {"b": [problem]}, 100, RETURN_S, 3600, reached=True)


def test_nothing_is_given_up_for_what_was_found_before_the_job_waited() -> None:
    assert give_up_reason(["b"], {"b": [one("b", Kind.REFUSED)]}, 1000, 0, 60) == ""
    assert give_up_reason(["a"], {"a": [one("a", Kind.AWAY)]}, 1000, 3600, 60) == ""


def test_pauses_grow_to_a_limit_and_differ() -> None:
    for kind, longest in ((Kind.AWAY, 5.0), (Kind.REFUSED, 60.0)):
        pauses = [pause_before_check(kind, tries) for tries in range(40)]
        assert all(0 < pause <= longest for pause in pauses)
        assert len(set(pauses[20:])) > 1


def test_a_check_that_succeeds_is_a_trial_and_only_a_copy_ends_the_trouble(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    side = sides[0]
    first = problems.record_failure(side, "a", unavailable(side), Kind.AWAY, pause_s=1)
    problems.record_answer(side, first)
    assert [trouble.trial for trouble in problems.of_batch("job", "a", sides).problems] == [True]

    second = problems.record_failure(side, "a", unavailable(side), Kind.AWAY, pause_s=1)
    assert (second.since, second.tries, second.trial) == (first.since, 2, False)
    assert problems.recently_away(sides)

    problems.record_copy(side, "a")
    assert not problems.of_batch("job", "a", sides).problems
    assert problems.reached_before(side, "a")
    assert not problems.reached_before(side, "b")


def test_one_worker_at_a_time_takes_the_turn_to_check_a_store(
    problems: StoreProblems, sides: tuple[StoreSide, StoreSide]
) -> None:
    assert problems.claim_check(sides[0], 60)
    assert not problems.claim_check(sides[0], 60)
    assert problems.claim_check(sides[1], 60)
    problems.release_check(sides[0])
    assert problems.claim_check(sides[0], 60)
