"""Many short objects of a bucket in flight in one thread: each copy is right, and the rest is left to one by one."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import pytest

from snapferry.stores.address import Address, address_of, object_key
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct.http1 import AGAIN_S, ConnectionPool
from snapferry.stores.backends.s3.direct.in_flight import MOST_FAILURES, PooledRequest, exchange
from snapferry.stores.backends.s3.direct.response import Connection
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.transfer.batch import copy_batch
from snapferry.workers.copying.transfer.interfaces import BatchOptions, JobPaused
from snapferry.workers.copying.transfer.verify import verify_batch
from snapferry.workers.limits.semaphore import Semaphore
from snapferry.workers.outcome import BatchOutcome
from tests.faults.hostile_server import hostile
from tests.faults.scripted_server import scripted
from tests.faults.stub_s3 import Answer, Request, Stub, error, page
from tests.integration.processes import PATIENCE_S, until

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

BODIES = {digest(body): body for body in (b"object %d" % n * (1 + n) for n in range(200))}
SIZES = {address: len(body) for address, body in BODIES.items()}
VICTIM = sorted(BODIES)[120]


class Settled:
    """Progress: the objects that are settled, their planned bytes, and the bytes that were moved."""

    def __init__(self) -> None:
        self.totals = Counter[str]()
        self._lock = threading.Lock()

    def begin(self, needed: list[Address]) -> None:
        pass

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        with self._lock:
            self.totals.update(objects=objects, planned=size_bytes, moved=moved)


class Buckets:
    """
    The buckets "source" and "destination" of a stub. *odd* answers a request in their place, if it returns an answer.

    *most* is the peak of requests that were being answered at once. None is answered before *at_once* were.
    """

    def __init__(self, stub: Stub) -> None:
        self.stored: dict[str, dict[str, bytes]] = {
            "source": {object_key(address): body for address, body in BODIES.items()},
            "destination": {},
        }
        self.odd: Callable[[Request, Address | None], Answer | None] = lambda *_: None
        self.most = self.at_once = 0
        self.seen: Counter[tuple[str, str]] = Counter()
        self._now = 0
        self._lock = threading.Condition()
        stub.answer = self.answer
        self.source, self.destination = (
            S3Backend(Bucket(name, "", endpoint=stub.endpoint)) for name in self.stored
        )

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self._lock.notify_all()
            if "list-type" not in request.query:
                assert self._lock.wait_for(lambda: self.most >= self.at_once, PATIENCE_S)
        try:
            return self._answer(request)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, request: Request) -> Answer:
        _, bucket, key = (request.path + "/").split("/", 2)
        key = key.removesuffix("/")
        if "list-type" in request.query or not key:
            return page(sorted(self.stored[bucket]))
        with self._lock:
            self.seen[request.method, bucket] += 1
        found = self.odd(request, address_of(key, ".objects/"))
        if found is not None:
            return found
        if request.method == "PUT":
            self.stored[bucket][key] = request.body
            return Answer()
        body = self.stored[bucket].get(key)
        return error(404, "NoSuchKey") if body is None else Answer(200, body)

    def copy(self, at_once: int = 0, **options: Unpack[BatchOptions]) -> BatchOutcome:
        """Copy all objects. The first one is written by itself before: that tells how the server confirms."""
        first = next(iter(SIZES))
        SnapshotStore(self.destination).put_object(first, BODIES[first])
        self.seen.clear()
        self.most, self.at_once = 0, at_once
        left = {address: size for address, size in SIZES.items() if address != first}
        progress = Settled()
        outcome = copy_batch(
            SnapshotStore(self.source), SnapshotStore(self.destination), left, progress, **options
        )
        assert progress.totals == {
            "objects": len(left),
            "planned": sum(left.values()),
            "moved": outcome.bytes_copied,
        }
        return outcome


@pytest.fixture
def buckets(stub: Stub) -> Buckets:
    return Buckets(stub)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The objects that are copied by themselves."""
    copied: list[Address] = []
    real = SnapshotStore.copy_object

    def copy_object(self: SnapshotStore, source: SnapshotStore, address: Address, **more: object) -> int:
        copied.append(address)
        return real(self, source, address, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(SnapshotStore, "copy_object", copy_object)
    return copied


def test_every_object_is_copied_by_one_get_and_one_put_in_flight(
    buckets: Buckets, one_by_one: list[Address]
) -> None:
    outcome = buckets.copy()

    assert (outcome.copied, outcome.failures) == (199, [])
    assert outcome.bytes_copied == sum(SIZES.values()) - SIZES[next(iter(SIZES))]
    assert buckets.stored["destination"] == buckets.stored["source"]
    assert one_by_one == []
    assert buckets.seen == {("GET", "source"): 199, ("PUT", "destination"): 199}
    assert buckets.source.requests_sent["GetObject"] == 199
    assert buckets.destination.requests_sent["PutObject"] == 200
    assert buckets.destination.confirmed == {Confirmation.ETAG.value: 200}


@pytest.mark.parametrize("flights", [2, 7])
def test_no_more_are_in_flight_than_are_allowed(buckets: Buckets, flights: int) -> None:
    assert buckets.copy(at_once=flights, concurrency=flights).copied == 199

    assert buckets.most == flights


def test_a_limit_with_room_for_some_lets_in_as_many(buckets: Buckets) -> None:
    limit = Semaphore(lambda: None, lambda _: None)
    limit.set_limit(3)

    assert buckets.copy(at_once=3, limit=limit).copied == 199

    assert buckets.most == 3
    assert limit.in_flight == 0


@pytest.mark.parametrize("limited", [False, True])
def test_no_object_waits_for_another_one_while_limits_stay_as_they_are(
    buckets: Buckets, monkeypatch: pytest.MonkeyPatch, limited: bool
) -> None:
    monkeypatch.setattr("snapferry.workers.copying.transfer.batch.ASK_AGAIN_S", 0.0)
    others_copied = threading.Event()

    written: set[Address | None] = set()

    def odd(request: Request, address: Address | None) -> None:
        if request.method == "PUT":
            written.add(address)
            if len(written) == len(SIZES) - 1:
                others_copied.set()
        elif address == VICTIM:
            assert others_copied.wait(PATIENCE_S)

    buckets.odd = odd
    limit = Semaphore(lambda: None, lambda _: None) if limited else None

    assert buckets.copy(limit=limit, concurrency=2).copied == 199
    assert others_copied.is_set()


def test_without_knowing_how_a_server_confirms_nothing_is_read_twice(
    buckets: Buckets, one_by_one: list[Address]
) -> None:
    outcome = copy_batch(
        SnapshotStore(buckets.source), SnapshotStore(buckets.destination), SIZES, Settled(), concurrency=16
    )

    assert outcome.copied == 200
    assert len(one_by_one) == 16
    assert buckets.seen == {("GET", "source"): 200, ("PUT", "destination"): 200}


def _wrong(request: Request, method: str, address: Address | None) -> bool:
    return request.method == method and address == VICTIM


GET_ANSWERS: dict[str, Answer] = {
    "not found": error(404, "NoSuchKey"),
    "denied": error(403, "AccessDenied"),
    "other bytes": Answer(200, b"x" * SIZES[VICTIM]),
    "too few bytes": Answer(200, BODIES[VICTIM][:-1]),
    "cut off": Answer(200, BODIES[VICTIM][:-1], length=SIZES[VICTIM]),
    "reset": Answer(200, BODIES[VICTIM][:-1], length=SIZES[VICTIM], cut=True),
    "far too long": Answer(200, b"x" * 200_000),
}


@pytest.mark.parametrize("name", GET_ANSWERS)
def test_what_is_not_read_right_is_left_to_one_by_one_and_fails_alone(
    buckets: Buckets, one_by_one: list[Address], name: str
) -> None:
    buckets.odd = lambda request, address: GET_ANSWERS[name] if _wrong(request, "GET", address) else None

    outcome = buckets.copy()

    assert outcome.copied == 198
    assert [failure.address for failure in outcome.failures] == [VICTIM]
    assert one_by_one == [VICTIM]
    assert object_key(VICTIM) not in buckets.stored["destination"]


@pytest.mark.parametrize(
    "odd",
    [
        Answer(200, BODIES[VICTIM], no_length=True),
        Answer(200, BODIES[VICTIM], {"Connection": "close"}),
        error(503, "ServiceUnavailable"),
    ],
    ids=["no length", "closing", "away"],
)
def test_an_odd_answer_that_passes_is_no_failure(buckets: Buckets, odd: Answer) -> None:
    answers = iter([odd])
    buckets.odd = lambda request, address: next(answers, None) if _wrong(request, "GET", address) else None

    outcome = buckets.copy()

    assert (outcome.copied, outcome.failures) == (199, [])
    assert buckets.stored["destination"] == buckets.stored["source"]


@pytest.mark.parametrize(
    "odd",
    [
        error(500, "InternalError"),
        Answer(200, b"<Error><Code>InternalError</Code></Error>"),
        Answer(200, headers={"ETag": '"00000000000000000000000000000000"'}),
        Answer(200, cut=True, length=1),
    ],
    ids=["failed", "failed after all", "other bytes arrived", "cut off"],
)
def test_a_write_that_is_not_confirmed_is_sent_again(buckets: Buckets, odd: Answer) -> None:
    answers = iter([odd])
    buckets.odd = lambda request, address: next(answers, None) if _wrong(request, "PUT", address) else None

    outcome = buckets.copy()

    assert (outcome.copied, outcome.failures) == (199, [])
    assert buckets.seen["PUT", "destination"] == 200
    assert buckets.stored["destination"] == buckets.stored["source"]
    assert sum(buckets.destination.confirmed.values()) == 200


def test_after_failures_in_a_row_nothing_more_is_sent_in_flight(
    buckets: Buckets, one_by_one: list[Address]
) -> None:
    """Else each object of a store that refuses all would be asked for twice."""
    buckets.odd = lambda request, _: error(403, "AccessDenied") if request.method == "GET" else None

    outcome = buckets.copy(concurrency=4)

    assert len(outcome.failures) == len(one_by_one) == 199
    assert buckets.seen["GET", "source"] <= 199 + 4 + MOST_FAILURES


def test_a_server_that_ends_connections_without_a_word_costs_no_object(buckets: Buckets) -> None:
    asked = Counter[str]()

    def odd(request: Request, address: Address | None) -> Answer | None:
        asked[request.method] += 1
        if request.method == "GET" and asked["GET"] % 10 == 0 and address is not None:
            return Answer(200, BODIES[address], {"Connection": "close"})
        return None

    buckets.odd = odd

    assert buckets.copy().copied == 199
    assert buckets.stored["destination"] == buckets.stored["source"]


class Stopped(BaseException):
    pass


def test_a_stop_ends_the_batch_and_leaves_no_connection_in_flight(buckets: Buckets) -> None:
    stop = threading.Event()
    buckets.odd = lambda *_: stop.set() if len(buckets.stored["destination"]) > 50 else None
    buckets.copy(concurrency=2)  # whatever is opened once is open now
    before = len(os.listdir("/proc/self/fd"))
    buckets.stored["destination"].clear()
    stop.clear()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    with interruptible(check), pytest.raises(Stopped):
        buckets.copy(concurrency=2)

    assert len(os.listdir("/proc/self/fd")) <= before
    assert all(
        BODIES[address] == body
        for key, body in buckets.stored["destination"].items()
        if (address := address_of(key, ".objects/")) is not None
    )


class Limiter:
    def __init__(self) -> None:
        self.requests = 0

    def acquire_requests(self, count: int, /) -> None:
        self.requests += count

    def acquire_bytes(self, count: int, /) -> None:
        pass

    def refund_bytes(self, count: int, /) -> None:
        pass


def test_a_rate_limit_that_begins_meanwhile_sees_every_later_request(
    buckets: Buckets, one_by_one: list[Address]
) -> None:
    limiter = Limiter()

    def odd(request: Request, address: Address | None) -> None:
        if address == VICTIM:
            buckets.source.limit_rate(limiter)

    buckets.odd = odd

    assert buckets.copy(concurrency=2).copied == 199

    assert 0 < len(one_by_one) == limiter.requests < 199


def test_short_objects_of_a_directory_are_written_in_flight(
    buckets: Buckets, one_by_one: list[Address], tmp_path: Path
) -> None:
    directory = SnapshotStore(DirectoryBackend(str(tmp_path)))
    for address, body in BODIES.items():
        directory.put_object(address, body)
    SnapshotStore(buckets.destination).put_object(VICTIM, BODIES[VICTIM])

    outcome = copy_batch(directory, SnapshotStore(buckets.destination), SIZES, Settled())

    assert (outcome.copied, outcome.present) == (199, 1)
    assert one_by_one == []
    assert buckets.stored["destination"] == buckets.stored["source"]


def test_short_objects_arrive_in_a_directory_in_flight(buckets: Buckets, tmp_path: Path) -> None:
    buckets.odd = lambda _, address: GET_ANSWERS["other bytes"] if address == VICTIM else None
    directory = SnapshotStore(DirectoryBackend(str(tmp_path)))

    outcome = copy_batch(SnapshotStore(buckets.source), directory, SIZES, Settled())

    assert outcome.copied == 199
    assert [(failure.address, failure.error) for failure in outcome.failures] == [(VICTIM, "IntegrityError")]
    assert directory.objects_needed(SIZES) == [VICTIM]
    # In flight, by itself, and twice to be sure.
    assert buckets.seen == {("GET", "source"): 199 + 4}
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".") and path.is_file()]


def test_short_objects_are_verified_in_flight(buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.workers.copying.transfer.verify.SECOND_LOOK_S", 0.0)
    corrupt, missing, longer = sorted(BODIES)[50:53]
    source = buckets.stored["source"]
    source[object_key(corrupt)] = b"x" + source[object_key(corrupt)][1:]
    del source[object_key(missing)]
    sizes = SIZES | {longer: SIZES[longer] - 1}
    store = SnapshotStore(buckets.source)
    buckets.at_once = 2

    outcome = verify_batch(store, store, sizes, Settled())

    assert outcome.present == 198
    assert {failure.address: failure.error for failure in outcome.failures} == {
        corrupt: "IntegrityError",
        missing: "ObjectMissing",
    }


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


@contextmanager
def pool_to(endpoint: str, silence_s: float = PATIENCE_S) -> Iterator[ConnectionPool]:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    pool = ConnectionPool((host, int(port)), tls=None, connect_timeout_s=PATIENCE_S, read_timeout_s=silence_s)
    yield pool
    pool.close()


def bodies(pool: ConnectionPool, count: int, most: int) -> list[object]:
    requests: Iterator[PooledRequest] = (
        PooledRequest(pool, b"GET /%d HTTP/1.1\r\n\r\n" % n, lambda _, body: body) for n in range(count)
    )
    return list(exchange(requests, most))


def test_bytes_after_an_answer_are_not_taken_for_the_answer_to_another_request() -> None:
    with scripted([OK + b"a" + OK + b"b"], [OK + b"c"]) as server, pool_to(server.endpoint) as pool:
        assert bodies(pool, 2, 1) == [b"a", b"c"]
        assert server.connections == 2


def test_a_free_connection_that_the_server_has_ended_is_replaced() -> None:
    with scripted([OK + b"a", None], [OK + b"b"]) as server, pool_to(server.endpoint) as pool:
        assert bodies(pool, 1, 1) == [b"a"]
        until(pool.idle[0].is_readable, "the end has arrived")
        assert bodies(pool, 1, 1) == [b"b"]


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.stores.backends.s3.direct.in_flight.SLICE_S", 0.01)
    with scripted([threading.Event()]) as server, pool_to(server.endpoint, 0.05) as pool:
        assert bodies(pool, 3, 3) == []


def test_where_no_connection_can_be_made_nothing_is_sent() -> None:
    with scripted([OK + b"a"]) as server:
        pass
    with pool_to(server.endpoint) as pool:
        assert bodies(pool, 5, 2) == []


def test_connections_are_made_ahead_and_kept() -> None:
    with scripted([OK + b"a"]) as server, pool_to(server.endpoint) as pool:
        pool.open_ahead(2)
        until(lambda: len(pool.idle) == 2, "the connections are made")
        pool.open_ahead(2)

        assert bodies(pool, 6, 2) == [b"a"] * 6
        assert server.connections == 2


def test_where_connections_end_at_once_few_are_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may allow fewer than are wanted, and end the others at once."""
    made: list[Connection] = []
    now = [0.0]
    real = ConnectionPool._connect

    def connect(self: ConnectionPool) -> Connection:
        made.append(connection := real(self))
        until(connection.is_readable, "the server has ended it")
        return connection

    monkeypatch.setattr(ConnectionPool, "_connect", connect)
    monkeypatch.setattr("snapferry.stores.backends.s3.direct.http1.monotonic", lambda: now[0])
    with hostile(lambda _: None) as server, pool_to(server.endpoint) as pool:
        pool.open_ahead(2)
        until(lambda: len(pool.idle) == 2, "both are made")
        assert pool.take_idle() is None

        pool.open_ahead(2)
        now[0] = AGAIN_S
        pool.open_ahead(1)
        until(lambda: pool.idle, "another one")
        assert len(made) == 3


def test_a_semaphore_lets_in_as_many_as_there_is_room_for() -> None:
    limit = Semaphore(lambda: None, lambda _: None)

    assert limit.enter_some(5) == 5
    limit.set_limit(7)
    assert limit.enter_some(5) == 2
    assert limit.enter_some(5) == 0
    limit.leave_some(3)
    assert limit.enter_some(5) == 3
    limit.set_limit(1)
    limit.leave_some(7)
    assert (limit.in_flight, limit.enter_some(2)) == (0, 1)


def test_a_semaphore_tells_whether_those_that_it_let_in_may_stay() -> None:
    limit = Semaphore(lambda: None, lambda _: None)
    assert limit.enter_some(5) == 5
    assert limit.keeps_some(5, 5)

    limit.set_limit(5)
    assert limit.keeps_some(5, 9)
    limit.set_limit(6)
    assert limit.keeps_some(5, 5)
    assert not limit.keeps_some(5, 9)
    limit.set_limit(4)
    assert not limit.keeps_some(5, 9)
    assert limit.in_flight == 5


def test_a_pause_lets_end_what_is_in_flight(buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.workers.copying.transfer.batch.ASK_AGAIN_S", 0.0)
    written: list[str] = []

    def may_start() -> None:
        if len(written) > 50:
            raise JobPaused

    def odd(request: Request, _: Address | None) -> None:
        if request.method == "PUT":
            written.append(request.path)

    buckets.odd = odd
    limit = Semaphore(lambda: None, lambda _: None, may_start)

    with pytest.raises(JobPaused):
        buckets.copy(limit=limit)

    assert limit.in_flight == 0
    assert buckets.seen["GET", "source"] == buckets.seen["PUT", "destination"] < 199


def test_a_semaphore_that_may_not_start_lets_nothing_in() -> None:
    def refuse() -> None:
        raise Stopped

    limit = Semaphore(lambda: None, lambda _: None, refuse)

    with pytest.raises(Stopped):
        limit.enter_some(4)
    assert limit.in_flight == 0
