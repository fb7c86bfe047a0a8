"""A batch of objects whose content is compared: what is wrong is repaired from the first source that can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, QUARANTINE, Address, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import NotAllowed, StoreError, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.liveness import identity
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.streams import OpenReader
from snapferry.workers.copying.transfer.heal import MAX_TROUBLE, Healing
from snapferry.workers.outcome import BatchOutcome
from tests.faults.backends import AltersWrites, Around, FlipsLastByte, Forbids, Remembers, Unavailable
from tests.unit.test_transfer import Counted

BODIES = [b"", *(b"object %d" % number for number in range(20)), os.urandom(700_000)]
OBJECTS = {digest(data): data for data in BODIES}
SIZES = {address: len(data) for address, data in OBJECTS.items()}
A, B, C, D, *_ = (digest(b"object %d" % number) for number in range(20))
LARGE = digest(BODIES[-1])
WRONG = b"wrong"


class Noted:
    """The repairs of a batch."""

    def __init__(self) -> None:
        self.all: dict[Address, tuple[str, str, str]] = {}

    def found(self, wrong: Mapping[Address, str]) -> None:
        self.all |= {address: (what, "", "") for address, what in wrong.items()}

    def repaired(self, address: Address, wrong: str, source: str, quarantined: str) -> None:
        self.all[address] = (wrong, source, quarantined)

    def failed(self, address: Address) -> None:
        del self.all[address]

    @property
    def sources(self) -> dict[Address, tuple[str, str]]:
        """Address -> what was wrong, and the source."""
        return {address: found[:2] for address, found in self.all.items()}


def holding(name: str, *, but: Iterable[Address] = (), wrong: Iterable[Address] = ()) -> MemoryBackend:
    backend = MemoryBackend(name)
    for address, data in OBJECTS.items():
        if address not in set(but):
            backend.write(object_key(address), WRONG if address in set(wrong) else data)
    return backend


def run(
    destination: Backend, source: Backend, *further: Backend, compares: bool = False
) -> tuple[BatchOutcome, Noted, Counted]:
    noted, progress = Noted(), Counted()
    healing = Healing(noted, [lambda one=one: SnapshotStore(one) for one in further], compares)  # type: ignore[misc]
    outcome = healing.run(SnapshotStore(source), SnapshotStore(destination), SIZES, progress)
    assert (progress.objects, progress.bytes) == (len(SIZES), sum(SIZES.values()))
    assert outcome.copied + outcome.present + len(outcome.failures) == len(SIZES)
    return outcome, noted, progress


def contents(backend: MemoryBackend) -> dict[str, bytes]:
    return {key: data for key, data in backend._files.items() if not key.startswith(QUARANTINE)}


def quarantine(backend: MemoryBackend) -> list[bytes]:
    return [data for key, data in backend._files.items() if key.startswith(QUARANTINE)]


@pytest.mark.parametrize("compares", [True, False])
def test_intact_objects_are_left_alone_and_wrong_ones_replaced(compares: bool) -> None:
    inner = holding("destination", but=[A], wrong=[B, LARGE, EMPTY_ADDRESS])
    inner.write(object_key(C), b"")
    destination = Remembers(inner)

    outcome, noted, _ = run(destination, holding("source"), compares=compares)

    assert (outcome.copied, outcome.failures) == (5, [])
    assert outcome.bytes_copied == sum(SIZES[one] for one in (A, B, C, LARGE, EMPTY_ADDRESS))
    assert contents(inner) == contents(holding("source"))
    assert quarantine(inner) == [WRONG] * 3
    written = [key for verb, key in destination.calls if verb == "write" and not key.startswith(QUARANTINE)]
    assert sorted(written) == sorted(map(object_key, (A, B, C, LARGE, EMPTY_ADDRESS)))
    expected = {B: "corrupt", LARGE: "corrupt", EMPTY_ADDRESS: "corrupt"}
    if not compares:
        # In a copy, what is not there is copied as ever.
        expected |= {A: "missing", C: "corrupt"}
    assert noted.sources == {address: (what, "memory://source") for address, what in expected.items()}


def test_a_batch_that_is_repeated_changes_nothing() -> None:
    inner = holding("destination", but=[A], wrong=[B])
    run(inner, holding("source"))
    before = dict(inner._files)
    again = Remembers(inner)

    outcome, noted, _ = run(again, holding("source"))

    assert (outcome.present, outcome.copied, noted.all) == (len(SIZES), 0, {})
    assert [call for call in again.calls if call[0] != "flush"] == []
    assert inner._files == before


def test_each_object_comes_from_the_first_source_that_has_it_intact() -> None:
    """One source lacks some objects and has other ones corrupt, another one fails; neither stops the third."""
    destination = holding("destination", but=[A, LARGE], wrong=[B, C, D])
    first = holding("first", but=[A], wrong=[B, LARGE])
    second = Unavailable(holding("second"), strikes={object_key(A), object_key(B)}.__contains__)
    third = holding("third", wrong=[D])

    outcome, noted, _ = run(destination, first, second, third)

    assert outcome.failures == []
    assert {address: source for address, (_, source) in noted.sources.items()} == {
        A: "memory://third", B: "memory://third", C: "memory://first", D: "memory://first", LARGE: "memory://second",
    }  # fmt: skip
    assert contents(destination) == contents(holding("source"))


def test_what_no_source_has_intact_fails_alone_and_stays_as_it_is() -> None:
    destination = holding("destination", but=[A], wrong=[B, C])
    first, second = holding("first", but=[A, B]), holding("second", but=[A], wrong=[B])

    outcome, noted, _ = run(destination, first, second)

    failures = {failure.address: failure for failure in outcome.failures}
    assert {address: one.error for address, one in failures.items()} == {
        A: "ObjectMissing",
        B: "IntegrityError",
    }
    assert {one.store for one in failures.values()} == {"memory://destination"}
    assert not any(one.transient for one in failures.values())
    for one in failures.values():
        assert "memory://first" in one.detail
        assert "memory://second" in one.detail
    assert noted.sources == {C: ("corrupt", "memory://first")}
    assert destination._files[object_key(B)] == WRONG
    assert object_key(A) not in destination._files
    assert quarantine(destination) == [WRONG]


def test_a_source_without_an_answer_may_have_the_object_later() -> None:
    destination = holding("destination", wrong=[B])

    outcome, _, _ = run(destination, Unavailable(holding("first")), holding("second", but=[B]))

    assert [(one.address, one.transient) for one in outcome.failures] == [(B, True)]
    assert destination._files[object_key(B)] == WRONG


def test_a_further_source_that_gives_no_answer_is_not_asked_for_ever() -> None:
    destination, silent = holding("destination", wrong=SIZES), Unavailable(holding("silent"))

    outcome, _, _ = run(destination, holding("first", but=SIZES), silent, holding("third"))

    assert outcome.copied == len(SIZES)
    assert silent.struck <= MAX_TROUBLE


def test_a_source_that_this_worker_may_not_open_stops_no_other() -> None:
    def refuse() -> StreamStore:
        raise NotAllowed("file:///secret", "", "is not in SNAPFERRY_ALLOWED_STORES")

    destination, noted = holding("destination", wrong=[B]), Noted()
    healing = Healing(noted, [refuse, lambda: SnapshotStore(holding("third"))])

    outcome = healing.run(
        SnapshotStore(holding("first", but=[B])), SnapshotStore(destination), SIZES, Counted()
    )

    assert outcome.failures == []
    assert noted.sources == {B: ("corrupt", "memory://third")}


@pytest.mark.parametrize("compares", [True, False])
def test_a_destination_that_gives_no_answer_has_no_wrong_objects(compares: bool) -> None:
    inner = holding("destination", wrong=[B])
    destination = _SilentReads(inner, strikes={object_key(A), object_key(B)}.__contains__)

    outcome, noted, _ = run(destination, holding("source"), compares=compares)

    assert {one.address for one in outcome.failures} == {A, B}
    assert all(one.transient for one in outcome.failures)
    assert noted.all == {}
    assert inner._files[object_key(B)] == WRONG
    assert quarantine(inner) == []


class _SilentReads(Unavailable):
    def size(self, key: str) -> int | None:
        return self.inner.size(key)


def test_a_wrong_reading_alone_replaces_nothing() -> None:
    """A connection that alters bytes once is no corrupt object."""
    inner = holding("destination")

    outcome, noted, _ = run(
        FlipsLastByte(inner, strikes=object_key(A).__eq__, times=1), holding("source", wrong=[A])
    )

    assert (outcome.present, noted.all) == (len(SIZES), {})
    assert quarantine(inner) == []


def test_an_object_that_cannot_be_written_fails_with_the_reason() -> None:
    inner = holding("destination", wrong=[B])

    outcome, noted, _ = run(Forbids(inner), holding("source"), holding("other"))

    (failure,) = outcome.failures
    assert (failure.address, failure.error, failure.store) == (B, "IntegrityError", inner.label)
    assert "no permission" in failure.detail
    assert noted.all == {}
    assert inner._files == holding("destination", wrong=[B])._files


def test_a_repaired_object_is_read_again_before_it_counts() -> None:
    """A store that files other bytes than it was given. Or bits change on the way back: a later try may succeed."""
    inner = holding("destination", wrong=[B])

    outcome, noted, _ = run(AltersWrites(inner, strikes=object_key(B).__eq__), holding("source"))

    assert [(one.address, one.error, one.transient) for one in outcome.failures] == [
        (B, "IntegrityError", True)
    ]
    assert noted.all == {}


def test_a_strange_file_in_the_place_of_an_object_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "store"
    for address, data in OBJECTS.items():
        DirectoryBackend(str(root)).write(object_key(address), data)
    (root / object_key(A)).unlink()
    (root / object_key(A)).symlink_to("/etc/passwd")
    (root / object_key(B)).unlink()
    (root / object_key(B)).mkdir()
    for compares in (True, False):
        outcome, noted, _ = run(DirectoryBackend(str(root)), holding("source"), compares=compares)
        assert outcome.failures == []
        assert noted.sources == (dict.fromkeys([A, B], ("not a file", "memory://source")) if compares else {})
    assert Path("/etc/passwd").read_bytes()


def test_an_exception_of_a_source_costs_that_source_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Raises(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            raise ZeroDivisionError

    destination = holding("destination", wrong=[B])
    outcome, noted, _ = run(destination, Raises(holding("first")), holding("second"))

    assert outcome.failures == []
    assert noted.sources == {B: ("corrupt", "memory://second")}


class _Outages:
    def __init__(self) -> None:
        self.told: list[str] = []

    def succeeded(self, address: Address, *holders: str) -> None:
        return None

    def failed(self, error: StoreError) -> None:
        self.told.append(error.store)
        raise StoreUnavailable("", "", "stop")


@pytest.mark.parametrize(
    ("destination", "source", "told"),
    [
        (lambda: _SilentReads(holding("destination")), lambda: holding("source"), "destination"),
        (lambda: holding("destination", wrong=[A]), lambda: Unavailable(holding("source")), "source"),
    ],
)
def test_an_outage_ends_the_batch(
    destination: Callable[[], Backend], source: Callable[[], Backend], told: str
) -> None:
    outages = _Outages()
    with pytest.raises(StoreUnavailable, match="stop"):
        Healing(Noted()).run(
            SnapshotStore(source()), SnapshotStore(destination()), SIZES, Counted(), outages=outages
        )
    assert outages.told == [f"memory://{told}"]


@pytest.mark.parametrize("compares", [False, True])
def test_a_look_at_objects_removes_what_dead_writers_left_beside_them(tmp_path: Path, compares: bool) -> None:
    """The writers of a job that Redis has lost, say, which no later run takes over."""
    destination = DirectoryBackend(str(tmp_path))
    for address, data in OBJECTS.items():
        destination.write(object_key(address), data)
    machine, process, _ = identity().split("-")
    left = (tmp_path / object_key(A)).parent / f".tmp-{machine}-{process}-0123456789ab-0"
    left.touch()

    outcome, *_ = run(destination, holding("source"), compares=compares)

    assert (outcome.present, left.exists()) == (len(SIZES), False)
