"""A batch of objects: what fails alone, what stops everything, and many objects in flight."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from snapferry.stores.address import Address, object_key
from snapferry.stores.backend import Backend, Capabilities
from snapferry.stores.backends.directory import backend as directory
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.directory.paths import mounts
from snapferry.stores.backends.directory.paths.root import Root
from snapferry.stores.backends.directory.streams import FileUpload
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import (
    AccessDenied,
    StoreError,
    StoreFault,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)
from snapferry.stores.features import KeepsUnfinished
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.interruption import checkpoint, interruptible
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import OpenReader, Upload
from snapferry.stores.wrappers.forwarding import ForwardingBackend
from snapferry.workers.copying.transfer import MANY_DENIED, JobStopped, batch, copy_batch
from snapferry.workers.copying.transfer.batch import flights_of
from snapferry.workers.copying.transfer.verify import verify_batch
from snapferry.workers.outcome import BatchOutcome
from tests.faults.backends import (
    Around,
    Died,
    DiesAfter,
    FlipsLastByte,
    Forbids,
    Remembers,
    Truncates,
    Unavailable,
)

TIMEOUT_S = 10.0

OBJECTS = {digest(data): data for data in (b"object %d" % number for number in range(20))}
SIZES = {address: len(OBJECTS[address]) for address in sorted(OBJECTS)}
FIRST, SECOND = list(SIZES)[:2]


class Counted:
    """Counts what a batch reports; raises `JobStopped` once *cancel_after* objects are settled."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.objects = 0
        self.bytes = 0
        self.calls = 0
        self._cancel_after = cancel_after
        self._lock = threading.Lock()

    def begin(self, needed: list[Address]) -> None:
        return None

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        assert objects >= 0 <= size_bytes
        with self._lock:
            self.calls += 1
            self.objects += objects
            self.bytes += size_bytes
            if self._cancel_after is not None and self.objects >= self._cancel_after:
                raise JobStopped


def source_backend(objects: dict[Address, bytes] = OBJECTS) -> MemoryBackend:
    backend = MemoryBackend("source")
    for address, data in objects.items():
        backend.write(object_key(address), data)
    return backend


def stores(
    source: Backend | None = None, destination: Backend | None = None
) -> tuple[SnapshotStore, SnapshotStore]:
    return SnapshotStore(source or source_backend()), SnapshotStore(
        destination or MemoryBackend("destination")
    )


def only(*addresses: Address) -> Callable[[str], bool]:
    return {object_key(address) for address in addresses}.__contains__


@pytest.mark.parametrize(
    ("fault", "error", "transient"),
    [
        (FlipsLastByte, "IntegrityError", False),
        (Truncates, "IntegrityError", False),
        (Unavailable, "StoreUnavailable", True),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_object_that_cannot_be_read_fails_alone(
    fault: type, error: str, transient: bool, concurrency: int
) -> None:
    source, destination = stores(source=fault(source_backend(), only(FIRST)))

    outcome = copy_batch(source, destination, SIZES, Counted(), concurrency=concurrency)

    assert [(f.address, f.error, f.store, f.transient) for f in outcome.failures] == [
        (FIRST, error, "memory://source", transient)
    ]
    assert outcome.transient_failures is transient
    assert outcome.copied == len(SIZES) - 1
    assert destination.objects_needed(SIZES) == [FIRST]


def test_an_object_that_the_source_lacks_fails_alone_and_for_good() -> None:
    backend = source_backend()
    backend.delete(object_key(FIRST))
    source, destination = stores(backend)

    outcome = copy_batch(source, destination, SIZES, Counted())

    (failure,) = outcome.failures
    assert (failure.error, failure.transient) == ("ObjectMissing", False)
    assert outcome.copied == len(SIZES) - 1


def test_a_write_that_gets_no_answer_fails_alone() -> None:
    source, destination = stores(destination=Unavailable(MemoryBackend("d"), strikes=only(FIRST), times=2))

    with pytest.raises(StoreUnavailable):
        copy_batch(source, destination, SIZES, Counted())  # the question what is there got no answer
    outcome = copy_batch(source, SnapshotStore(_DeafToWrites(MemoryBackend("d"), FIRST)), SIZES, Counted())

    assert [(failure.address, failure.store) for failure in outcome.failures] == [(FIRST, "memory://d")]
    assert outcome.transient_failures


class _DeafToWrites(Around):
    def __init__(self, inner: Backend, address: Address) -> None:
        super().__init__(inner)
        self._deaf = Unavailable(inner, only(address))

    def write(self, key: str, data: bytes) -> None:
        self._deaf.write(key, data)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_destination_that_denies_everything_is_not_asked_object_by_object(concurrency: int) -> None:
    forbids = Forbids(MemoryBackend("destination"))
    objects = {digest(data): data for data in (b"%d" % number for number in range(100))}
    source, destination = stores(source_backend(objects), destination=forbids)
    sizes = {address: len(data) for address, data in objects.items()}

    outcome = copy_batch(source, destination, sizes, Counted(), concurrency=concurrency)

    assert {(failure.error, failure.store) for failure in outcome.failures} == {
        ("AccessDenied", "memory://destination")
    }
    assert len(outcome.failures) == 100
    assert forbids.struck <= MANY_DENIED + concurrency


def test_a_denied_object_fails_alone() -> None:
    forbids = Forbids(MemoryBackend("destination"), only(FIRST))
    source, destination = stores(destination=forbids)

    outcome = copy_batch(source, destination, SIZES, Counted())

    assert [failure.address for failure in outcome.failures] == [FIRST]
    assert outcome.copied == len(SIZES) - 1


def test_a_full_destination_is_not_asked_object_by_object_and_what_is_done_is_counted() -> None:
    class FullAfter(Around):
        asked = 0

        def write(self, key: str, data: bytes) -> None:
            self.asked += 1
            if self.asked > 3:
                raise StoreFull(self.label, key, "no space left")
            self.inner.write(key, data)

    full = FullAfter(MemoryBackend("destination"))
    source, destination = stores(destination=full)
    full.inner.write(object_key(FIRST), source.get_object(FIRST))

    outcome = copy_batch(source, destination, SIZES, Counted())

    assert (outcome.present, outcome.copied, len(outcome.failures)) == (1, 3, len(SIZES) - 4)
    assert {failure.error for failure in outcome.failures} == {"StoreFull"}
    assert full.asked == 4


@pytest.mark.parametrize("refused", [FIRST, SECOND, list(SIZES)[10], list(SIZES)[-1]])
def test_a_group_that_a_full_directory_shows_in_part_is_counted_exactly(
    tmp_path: Path, refused: Address
) -> None:
    """Every rename but one is done when the destination says that it is full."""
    backend = DirectoryBackend(str(tmp_path / "store"))
    source, destination = stores(destination=backend)
    show = FileUpload._rename

    def full(self: FileUpload) -> None:
        if self._key == object_key(refused):
            raise OSError(errno.ENOSPC, "no space left")
        show(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "_extension", None)
        patch.setattr(FileUpload, "_rename", full)
        outcome = copy_batch(source, destination, SIZES, Counted())

    assert destination.objects_needed(SIZES) == [refused]
    assert [(failure.address, failure.error) for failure in outcome.failures] == [(refused, "StoreFull")]
    assert (outcome.copied, outcome.present) == (len(SIZES) - 1, 0)
    assert outcome.bytes_copied == sum(SIZES.values()) - SIZES[refused]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_is_on_its_way_when_a_directory_is_full_is_made_visible_and_counted(
    tmp_path: Path, concurrency: int
) -> None:
    """A group is in the middle of its staging then: what has its bytes on the disk needs no more space."""
    source, destination = stores(destination=DirectoryBackend(str(tmp_path / "store")))
    make = Root.make
    lock = threading.Lock()
    asked = 0

    def full_after_five(self: Root, path: str) -> tuple[int, bool]:
        nonlocal asked
        with lock:
            asked += 1
            full = asked > 5
        if full:
            raise OSError(errno.ENOSPC, "no space left")
        return make(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "_extension", None)
        patch.setattr(Root, "make", full_after_five)
        outcome = copy_batch(source, destination, SIZES, Counted(), concurrency=concurrency)

    assert (outcome.copied, len(outcome.failures)) == (5, len(SIZES) - 5)
    assert [failure.address for failure in outcome.failures] == destination.objects_needed(SIZES)
    assert {failure.error for failure in outcome.failures} == {"StoreFull"}
    assert asked <= 5 + concurrency
    assert [path for path in tmp_path.rglob("*") if ".tmp-" in path.name] == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_destination_that_is_gone_fails_the_rest_and_what_was_copied_is_flushed(concurrency: int) -> None:
    class GoneAfter(Around):
        lock = threading.Lock()
        asked = 0

        def write(self, key: str, data: bytes) -> None:
            with self.lock:
                self.asked += 1
                gone = self.asked > 7
            if gone:
                raise StoreNotFound(self.label, key, "is it mounted here?")
            self.inner.write(key, data)

    remembers = Remembers(MemoryBackend("destination"))
    gone = GoneAfter(remembers)
    source, destination = stores(destination=gone)

    outcome = copy_batch(source, destination, SIZES, Counted(), concurrency=concurrency)

    assert (outcome.copied, len(outcome.failures)) == (7, len(SIZES) - 7)
    assert {(failure.error, failure.detail) for failure in outcome.failures} == {
        ("StoreNotFound", "is it mounted here?")
    }
    assert {failure.address for failure in outcome.failures} == set(destination.objects_needed(SIZES))
    assert gone.asked <= 7 + concurrency
    assert remembers.calls[-1] == ("flush", "")


def test_many_denied_objects_do_not_end_a_batch_of_which_one_was_copied() -> None:
    """Then it is the objects that are denied and not the store."""
    objects = {digest(data): data for data in (b"%d" % number for number in range(3 * MANY_DENIED))}
    sizes = {address: len(objects[address]) for address in sorted(objects)}
    first, *denied, last = sizes
    forbids = Forbids(MemoryBackend("destination"), only(*denied))
    source, destination = stores(source_backend(objects), destination=forbids)

    outcome = copy_batch(source, destination, sizes, Counted())

    assert [failure.address for failure in outcome.failures] == denied
    assert forbids.struck == len(denied) > 2 * MANY_DENIED
    assert destination.objects_needed([first, last]) == []


@pytest.mark.parametrize("error", [StoreFull, StoreNotFound, AccessDenied])
def test_a_source_that_says_so_of_itself_fails_every_object_for_its_own_reason(
    error: type[StoreError],
) -> None:
    """Each object is asked for: what a source says of one is no answer about the next."""
    objects = {digest(data): data for data in (b"%d" % number for number in range(2 * MANY_DENIED))}

    class Says(Around):
        asked = 0

        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            self.asked += 1
            raise error(self.label, key, f"no {self.asked}")

    says = Says(source_backend(objects))
    source, destination = stores(source=says)

    outcome = copy_batch(source, destination, dict.fromkeys(objects, 1), Counted())

    assert len({failure.detail for failure in outcome.failures}) == len(objects) == says.asked
    assert {failure.store for failure in outcome.failures} == {"memory://source"}


def test_an_object_is_settled_only_when_it_is_visible(tmp_path: Path) -> None:
    """Also where objects become visible in groups: what a batch reports is there, whatever happens next."""
    for backend in (DirectoryBackend(str(tmp_path / "store")), MemoryBackend("destination")):
        source, destination = stores(destination=backend)

        class Looks(Counted):
            there = SnapshotStore(backend)

            def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
                super().advance(objects, size_bytes, moved)
                assert self.objects <= len(SIZES) - len(self.there.objects_needed(SIZES))

        looks = Looks()

        copy_batch(source, destination, SIZES, looks)

        assert (looks.objects, looks.bytes) == (len(SIZES), sum(SIZES.values()))


@pytest.mark.parametrize(
    ("slow_s", "open_files", "groups"),
    [(-1.0, 100, [4, 9, 7]), (1000.0, 100, [4, 4, 4, 4, 4]), (-1.0, 5, [4, 5, 5, 5, 1])],
)
def test_more_objects_share_a_flush_that_is_slow_within_the_limit_of_open_files(
    slow_s: float, open_files: int, groups: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "SLOW_FLUSH_S", slow_s)
    monkeypatch.setattr(directory, "COMMITS_TOGETHER", 4)
    monkeypatch.setattr(directory, "MOST_COMMITS_TOGETHER", 9)
    monkeypatch.setattr(batch, "max_in_flight", lambda: open_files)
    committed: list[int] = []
    commit_all = DirectoryBackend.commit_all

    def counted(self: DirectoryBackend, uploads: Sequence[Upload]) -> None:
        committed.append(len(uploads))
        commit_all(self, uploads)

    monkeypatch.setattr(DirectoryBackend, "commit_all", counted)
    destination = SnapshotStore(DirectoryBackend(str(tmp_path)))

    outcome = copy_batch(SnapshotStore(source_backend()), destination, SIZES, Counted())

    assert (outcome.copied, committed) == (len(SIZES), groups)


def test_objects_of_a_group_that_are_visible_in_spite_of_an_error_count_as_copied(tmp_path: Path) -> None:
    backend = DirectoryBackend(str(tmp_path / "store"))
    source, destination = stores(destination=backend)
    show = FileUpload._rename

    def fails_once(self: FileUpload) -> None:
        if self._key == object_key(FIRST):
            raise OSError(errno.EIO, "disk trouble")
        show(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "_extension", None)
        patch.setattr(FileUpload, "_rename", fails_once)
        outcome = copy_batch(source, destination, SIZES, Counted())

    assert [(failure.address, failure.transient) for failure in outcome.failures] == [(FIRST, True)]
    assert outcome.copied == len(SIZES) - 1
    assert destination.objects_needed(SIZES) == [FIRST]
    assert [path for path in tmp_path.rglob("*") if ".tmp-" in path.name] == []


def test_a_source_that_refuses_an_object_fails_that_object_alone() -> None:
    class Refuses(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            if key == object_key(FIRST):
                raise AccessDenied(self.label, key, "no permission")
            return self.inner.open(key, size_hint=size_hint)

    source, destination = stores(source=Refuses(source_backend()))

    outcome = copy_batch(source, destination, SIZES, Counted())

    assert [failure.error for failure in outcome.failures] == ["AccessDenied"]
    assert outcome.copied == len(SIZES) - 1


def test_what_the_destination_does_not_say_is_not_taken_for_absent() -> None:
    remembers = Remembers(MemoryBackend("destination"))
    source, destination = stores(destination=Unavailable(remembers, only(SECOND)))

    with pytest.raises(StoreUnavailable):
        copy_batch(source, destination, SIZES, Counted())

    assert remembers.calls == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_cancelled_batch_stops_and_what_is_copied_stays_whole(concurrency: int) -> None:
    source, destination = stores()

    with pytest.raises(JobStopped):
        copy_batch(source, destination, SIZES, Counted(cancel_after=5), concurrency=concurrency)

    copied = len(SIZES) - len(destination.objects_needed(SIZES))
    assert 5 <= copied < 5 + concurrency
    outcome = copy_batch(source, destination, SIZES, Counted())
    assert (outcome.copied, outcome.present) == (len(SIZES) - copied, copied)


def test_a_batch_is_cancelled_in_the_middle_of_a_large_object() -> None:
    large = b"large" * 1_000_000
    address = digest(large)
    source, destination = stores(source_backend({address: large}))

    class CancelsOnTheWay(Counted):
        def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
            super().advance(objects, size_bytes, moved)
            if self.bytes > 2_000_000:
                raise JobStopped

    counted = CancelsOnTheWay()

    with pytest.raises(JobStopped):
        copy_batch(source, destination, {address: len(large)}, counted)

    assert counted.objects == 0
    assert 0 < counted.bytes < len(large)
    assert not destination.has_object(address)


@pytest.mark.parametrize("advisory", [0, 1, 1_000, 2_000_000, 5_000_000, 50_000_000, 2**64 - 1])
def test_progress_ends_at_the_planned_size_whatever_the_real_one(advisory: int) -> None:
    large = b"large" * 1_000_000
    address = digest(large)
    source, destination = stores(source_backend({address: large}))
    counted = Counted()

    outcome = copy_batch(source, destination, {address: advisory}, counted)

    assert (outcome.copied, outcome.bytes_copied) == (1, len(large))
    assert (counted.objects, counted.bytes) == (1, advisory)
    assert destination.get_object(address) == large


def test_a_large_object_reports_on_its_way_and_a_small_one_once() -> None:
    large = b"large" * 1_000_000
    address = digest(large)
    source, destination = stores(source_backend({address: large}))
    counted = Counted()

    copy_batch(source, destination, {address: len(large)}, counted)

    assert counted.calls >= 5


def test_everything_is_durable_before_the_batch_says_so() -> None:
    remembers = Remembers(MemoryBackend("destination"))
    source, destination = stores(destination=remembers)

    copy_batch(source, destination, SIZES, Counted())
    assert [call for call, _ in remembers.calls] == ["write"] * len(SIZES) + ["flush"]

    remembers.calls.clear()
    # What is found present may be the work of a run that was killed before its flush.
    copy_batch(source, destination, SIZES, Counted())
    assert remembers.calls == [("flush", "")]


class _Rendezvous(Around):
    """Opens an object only when *parties* threads want one at the same time."""

    def __init__(self, inner: Backend, parties: int) -> None:
        super().__init__(inner)
        self.capabilities = Capabilities(concurrency=parties, pages_listings=False)
        self._barrier = threading.Barrier(parties, timeout=TIMEOUT_S)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        self._barrier.wait()
        return self.inner.open(key, size_hint=size_hint)


def test_as_many_objects_are_in_flight_as_the_slower_store_asks_for() -> None:
    """Were there fewer at once, the barrier would break."""
    source, destination = stores(source=_Rendezvous(source_backend(), 4))

    outcome = copy_batch(source, destination, SIZES, Counted())

    assert outcome.copied == len(SIZES)


def test_the_concurrency_that_is_asked_for_wins() -> None:
    source, destination = stores(source=_Rendezvous(source_backend(), 2))
    source.objects.capabilities = Capabilities(concurrency=1, pages_listings=False)

    assert copy_batch(source, destination, SIZES, Counted(), concurrency=2).copied == len(SIZES)


def directories(folder: Path) -> list[SnapshotStore]:
    """Return two directories; the first one has the objects."""
    found = [SnapshotStore(DirectoryBackend(str(folder / name))) for name in "ab"]
    for data in OBJECTS.values():
        found[0].put_object(digest(data), data)
    return found


@pytest.mark.parametrize("run", [copy_batch, verify_batch])
def test_where_no_store_waits_one_thread_does_all_however_many_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Callable[..., BatchOutcome]
) -> None:
    """Threads that only wait for each other take several times as long."""
    source, destination = directories(tmp_path)
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)

    outcome = run(source, destination, SIZES, Counted(), concurrency=8)

    assert outcome.copied + outcome.present == len(SIZES)
    assert not started


def test_how_many_are_in_flight_depends_on_whether_a_store_may_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, destination = directories(tmp_path)
    tree = TreeTarget(str(tmp_path / "tree"))
    distant = SnapshotStore(MemoryBackend())

    assert [flights_of(20, most, source, destination) for most in (None, 1, 8)] == [1, 1, 1]
    assert flights_of(20, 8, SnapshotStore(ForwardingBackend(source.objects))) == 1
    assert flights_of(20, 8, source, distant) == 8
    assert not tree.may_wait
    monkeypatch.setattr(mounts, "mount_of", lambda _: mounts.Mount("/", "nfs4"))
    assert [flights_of(most, 8, source, destination) for most in (20, 3)] == [8, 3]
    assert flights_of(20, None, source, destination) == 1
    assert tree.may_wait


def test_a_mount_is_found_by_the_path_and_a_link_to_it(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc/self")

    assert mounts.mount_of(str(link / "fd")) == mounts.Mount("/proc", "proc")
    assert not mounts.on_network(str(link))


def test_what_was_raised_first_is_raised_whichever_object_it_was() -> None:
    """The second object has failed for good when the first, still on its way, comes to its own end."""
    failed: queue.Queue[threading.Thread] = queue.Queue()

    class FailsFirstAtLast(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            if key == object_key(SECOND):
                failed.put(threading.current_thread())
                raise Died
            other = failed.get(timeout=TIMEOUT_S)
            other.join(TIMEOUT_S)
            assert not other.is_alive()
            raise SystemExit("another one, which came later")

    source, destination = stores(source=FailsFirstAtLast(source_backend()))

    with pytest.raises(Died):
        copy_batch(source, destination, {FIRST: 1, SECOND: 1}, Counted(), concurrency=2)


@pytest.mark.parametrize(
    "kind", [RuntimeError, RecursionError, UnicodeDecodeError, AttributeError, StopIteration]
)
@pytest.mark.parametrize("method", ["open", "write", "flush", "size"])
def test_an_exception_that_no_backend_should_raise_costs_objects_and_never_the_batch(
    kind: type[Exception], method: str
) -> None:
    """As of a plug-in: every object is settled, and only what was asked of the backend fails."""

    def odd(*_: object, **__: object) -> None:
        raise kind("utf-8", b"", 0, 1, "odd") if kind is UnicodeDecodeError else kind("odd")

    broken = Around(MemoryBackend("destination"))
    setattr(broken, method, odd)
    source, destination = stores(destination=broken)

    try:
        outcome = copy_batch(source, destination, SIZES, Counted(), concurrency=2)
    except StoreFault:
        # What is asked of the destination as a whole is a fault of the destination.
        assert method in {"flush", "size"}
    else:
        assert outcome.present + outcome.copied + len(outcome.failures) == len(SIZES)
        assert (len(outcome.failures) == len(SIZES)) == (method == "write")


def test_what_the_owner_raises_is_no_failure_of_an_object() -> None:
    class Lost(ConnectionError):
        """As of Redis, when it is asked for a grant while an object is read."""

    class Asks(Around):
        def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
            checkpoint()
            return self.inner.open(key, size_hint=size_hint)

    def check() -> None:
        raise Lost

    source, destination = stores(source=Asks(source_backend()))

    with pytest.raises(Lost), interruptible(check):
        copy_batch(source, destination, SIZES, Counted(), concurrency=2)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_surprise_stops_the_batch_and_is_not_taken_for_a_failure(concurrency: int) -> None:
    source, destination = stores(destination=DiesAfter(MemoryBackend("destination"), 5))

    with pytest.raises(Died):
        copy_batch(source, destination, SIZES, Counted(), concurrency=concurrency)

    assert len(destination.objects_needed(SIZES)) == len(SIZES) - 5


def test_a_fault_of_the_destination_names_the_destination() -> None:
    class Broken(Around):
        def write(self, key: str, data: bytes) -> None:
            raise StoreFault(self.label, key, "status 418")

    source, destination = stores(destination=Broken(MemoryBackend("destination")))

    outcome = copy_batch(source, destination, {FIRST: SIZES[FIRST]}, Counted())

    (failure,) = outcome.failures
    assert (failure.store, failure.detail) == ("memory://destination", "status 418")


def test_a_batch_of_nothing_does_nothing() -> None:
    remembers = Remembers(MemoryBackend("destination"))
    source, destination = stores(destination=remembers)

    outcome = copy_batch(source, destination, {}, Counted())

    assert (outcome.copied, outcome.present, outcome.failures, remembers.calls) == (0, 0, [], [])


@pytest.mark.parametrize("begun_before", [False, True])
def test_what_dead_uploads_left_is_removed_before_the_first_write_of_a_batch_that_was_begun_before(
    begun_before: bool,
) -> None:
    class Cleans(Remembers, KeepsUnfinished):
        def abort_unfinished(self, key: str, size_hint: int, *, dead_only: bool = False) -> None:
            self.calls.append(("abort unfinished", key))

    cleans = Cleans(MemoryBackend("destination"))
    source, destination = stores(destination=cleans)
    destination.put_object(FIRST, OBJECTS[FIRST])
    cleans.calls.clear()

    copy_batch(source, destination, SIZES, Counted(), abort_unfinished=begun_before)

    first = [("abort unfinished", object_key(address)) for address in SIZES] if begun_before else []
    assert cleans.calls[: len(first)] == first
    assert {what for what, _ in cleans.calls[len(first) :]} == {"write", "flush"}
