"""The direct path of S3: it is used, it agrees with boto3, and it leaves every odd answer to boto3."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import ssl
import stat
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients as s3_clients
from snapferry.stores.backends.s3.direct.http1 import ConnectionPool
from snapferry.stores.backends.s3.direct.paths import MAX_FAILURES, Paths
from snapferry.stores.backends.s3.direct.requests import DirectRequests
from snapferry.stores.backends.s3.direct.response import MAX_ANSWER_BYTES, Head
from snapferry.stores.backends.s3.direct_path import Keys
from snapferry.stores.backends.s3.objects.ranges import open_tagged
from snapferry.stores.errors import AccessDenied, StoreFault, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.urls import parse_url
from tests.faults.scripted_server import scripted
from tests.faults.stub_s3 import Answer, Request, Stub, error, page, serving
from tests.integration.processes import PATIENCE_S
from tests.opening import open_backend
from tests.servers import S3Server

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

DATA = b"an object"
KEY = object_key(digest(DATA))
OK = b"HTTP/1.1 200 OK\r\n"
# The length of a body that is read as it is needed.
LONG = MAX_ANSWER_BYTES + 1


@pytest.fixture
def backend(stub: Stub) -> S3Backend:
    return S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))


def read(backend: S3Backend, key: str = KEY) -> bytes:
    with backend.open(key) as reader:
        return reader.read(1_000_000)


def good(request: Request) -> Answer:
    if "list-type" in request.query:
        return page(["prefix/.objects/k"])
    return Answer(200, b"" if request.method == "PUT" else DATA)


CALLS = {
    "GET": read,
    "PUT": lambda backend: backend.write(KEY, DATA),
    "HEAD": lambda backend: backend.size(KEY),
    "LIST": lambda backend: list(backend.keys(".objects/")),
}
EXPECTED = {"GET": DATA, "PUT": None, "HEAD": len(DATA), "LIST": [(".objects/k", 1, 1714979289.0)]}


@pytest.mark.parametrize("name", CALLS)
def test_requests_for_objects_take_the_direct_path_and_are_counted(
    stub: Stub, backend: S3Backend, by_boto: list[str], name: str
) -> None:
    stub.answer = good

    for _ in range(3):
        assert CALLS[name](backend) == EXPECTED[name]

    assert by_boto == []
    assert len(stub.requests) == 3
    assert sum(backend.requests_sent.values()) == 3


def test_an_etag_is_as_the_server_sends_it(stub: Stub, backend: S3Backend) -> None:
    """A condition with another one would never hold."""
    stub.answer = lambda _: Answer(200, DATA, {"ETag": '"MiXed=Case"'})

    reader, etag = open_tagged(backend.bucket, KEY, 0)

    with reader:
        assert reader.read(100) == DATA
    assert etag == '"MiXed=Case"'


def test_finding_the_direct_path_sends_nothing(stub: Stub, backend: S3Backend) -> None:
    assert isinstance(backend.bucket.client.paths.path_to("bucket", "prefix/"), DirectRequests)

    assert stub.requests == []
    assert backend.requests_sent == {}


def test_a_path_is_looked_for_again_when_credentials_were_renewed_meanwhile(backend: S3Backend) -> None:
    """boto3 signed with others than those that its signature was compared with."""
    client = backend.bucket.client
    assert client.credentials is not None
    frozen = client.credentials.get_frozen_credentials

    class Changing:
        def __init__(self, times: int) -> None:
            self.times = times

        def get_frozen_credentials(self) -> Keys:
            self.times -= 1
            return frozen() if self.times < 0 else Keys(f"K{self.times}", "s", None)

    once, always = (
        Paths(
            client.boto, Changing(times), cafile="", connect_timeout_s=PATIENCE_S, read_timeout_s=PATIENCE_S
        )
        for times in (2, 1_000_000)
    )

    assert once.path_to("bucket", "prefix/") is None
    assert isinstance(once.path_to("bucket", "prefix/"), DirectRequests)
    for _ in range(MAX_FAILURES + 1):
        assert always.path_to("bucket", "prefix/") is None
    assert ("bucket", "prefix/") in always._paths


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_transient_fault_is_the_first_of_boto3s_attempts(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, backend: S3Backend, name: str, status: int
) -> None:
    """Nothing is asked twice for being handed over: there are five attempts in all."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    stub.answer = lambda _: error(status, "SlowDown" if status in {503, 429} else "")

    with pytest.raises(StoreUnavailable):
        CALLS[name](backend)

    assert len(stub.requests) == s3_clients.ATTEMPTS
    assert sum(backend.requests_sent.values()) == s3_clients.ATTEMPTS


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, error(503, "SlowDown")) for name in CALLS),
        # The answer to a HEAD is whole without the body, and one to a GET is read by whoever asked for it.
        *((name, Answer(cut=True, length=10)) for name in ("PUT", "LIST")),
        ("GET", Answer(no_length=True)),
    ],
)
def test_after_a_fault_boto3_retries_and_the_next_call_is_direct(
    stub: Stub, backend: S3Backend, by_boto: list[str], name: str, fault: Answer
) -> None:
    stub.answer = lambda request: fault if len(stub.requests) == 1 else good(request)

    assert CALLS[name](backend) == EXPECTED[name]
    assert len(by_boto) == 1
    assert CALLS[name](backend) == EXPECTED[name]
    assert len(by_boto) == 1
    assert len(stub.requests) == sum(backend.requests_sent.values()) == 3


def test_the_retry_after_of_a_server_is_obeyed(
    stub: Stub, backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", waited.append)
    busy = error(503, "SlowDown")
    busy.headers["x-amz-retry-after"] = "1500"
    busy.headers["Retry-After"] = "1"
    stub.answer = lambda request: busy if len(stub.requests) == 1 else good(request)

    assert read(backend) == DATA

    # boto3 itself sleeps for no time after the pause.
    assert len([pause for pause in waited if pause]) == 1


def test_boto3_gets_all_of_an_odd_answer(stub: Stub, backend: S3Backend) -> None:
    stub.answer = lambda _: error(418, "ATeapot", "Short and stout.")

    with pytest.raises(StoreFault, match="GetObject returned 418 ATeapot: Short and stout"):
        read(backend)
    assert len(stub.requests) == 1


def test_after_a_redirect_the_path_leads_to_the_region_of_the_bucket(stub: Stub, backend: S3Backend) -> None:
    elsewhere = error(301, "PermanentRedirect")
    elsewhere.headers["x-amz-bucket-region"] = "eu-west-3"
    stub.answer = lambda r: good(r) if "/eu-west-3/s3/" in r.headers["Authorization"] else elsewhere

    assert read(backend) == DATA
    before = len(stub.requests)
    assert read(backend) == DATA

    assert len(stub.requests) == before + 1


def test_a_path_that_fails_again_and_again_is_left_to_boto3(
    stub: Stub, backend: S3Backend, by_boto: list[str]
) -> None:
    """As with a server that wants to see what only boto3 sends."""
    stub.answer = lambda r: good(r) if "amz-sdk-request" in r.headers else error(400, "InvalidRequest")
    for _ in range(MAX_FAILURES):
        with pytest.raises(StoreFault):
            read(backend)
    stub.answer = lambda _: Answer(200, DATA, no_length=True)
    for _ in range(MAX_FAILURES):
        assert read(backend) == DATA
    stub.requests.clear()

    assert read(backend) == DATA

    assert len(stub.requests) == 1
    assert len(by_boto) == 2 * MAX_FAILURES + 1


def test_where_only_boto3_trusts_a_server_requests_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch, own_tls: ssl.SSLContext, by_boto: list[str]
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    with serving(tls=own_tls) as stub:
        stub.answer = good
        backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
        for _ in range(MAX_FAILURES + 1):
            assert read(backend) == DATA

        assert backend.bucket.client.paths.path_to("bucket", "prefix/") is None
        assert backend.requests_sent == {"GetObject": 2 * MAX_FAILURES + 1}


def answer(head: bytes, body: bytes = DATA) -> list[bytes | None]:
    return [OK + head + b"\r\n" + body]


LENGTH = b"Content-Length: %d\r\n" % len(DATA)


@pytest.mark.parametrize(
    "pieces",
    [
        answer(LENGTH),
        answer(b"content-length:%d\r\nConnection: keep-alive\r\n" % len(DATA)),
        answer(b"X-Folded: a\r\n b\r\n" + LENGTH),
        answer(b"X-Content-Length: 3\r\n" + LENGTH),
        answer(b"Content-Length: %d\r\n" % (len(DATA) - 4), DATA[:-4]),
        [bytes([byte]) for byte in OK + LENGTH + b"\r\n" + DATA],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + OK + LENGTH + b"\r\n" + DATA],
        [*answer(b"Connection: close\r\n" + LENGTH), None],
        [b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + DATA, None],
        [b"HTTP/1.0 200 OK\r\n\r\n" + DATA, None],
        answer(b"Transfer-Encoding: chunked\r\n", b"4\r\nan o\r\n5\r\nbject\r\n0\r\n\r\n"),
        answer(b"Transfer-Encoding: chunked\r\n" + LENGTH, b"9\r\nan object\r\n0\r\n\r\n"),
    ],
)
def test_a_body_is_read_right_however_it_is_framed(pieces: list[bytes | None]) -> None:
    with scripted(pieces) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        for _ in range(2):
            found = read(backend)
            assert found in {DATA, DATA[:-4]}
            assert len(found) == len(DATA) or b"%d" % len(found) in b"".join(filter(None, pieces))
        assert len(server.requests) == sum(backend.requests_sent.values())


@pytest.mark.parametrize(
    "pieces",
    [
        answer(b"Content-Length: 9\r\nContent-Length: 5\r\n"),
        answer(b"X-Odd: a\nContent-Length: 5\r\n" + LENGTH),
        [*answer(LENGTH + LENGTH), None],
        [*answer(b"Content-Length: nine\r\n"), None],
        [*answer(b"Content-Length: %s\r\n" % (b"9" * 5000)), None],
        answer(b"Transfer-Encoding: chunked\r\n", b"-5\r\nan object\r\n0\r\n\r\n"),
        [*answer(b"Content-Length: 100\r\n"), None],
        [None],
        [b"HTTP/1.1 2", None],
        [b"220 mail.example.org ESMTP\r\n\r\n", None],
        [b"\x15\x03\x01\x00\x02\x02\x16", None],
    ],
    ids=range(11),
)
def test_an_answer_that_cannot_be_right_is_never_a_body(
    monkeypatch: pytest.MonkeyPatch, pieces: list[bytes | None]
) -> None:
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    monkeypatch.setattr(s3_clients, "READ_TIMEOUT_S", 1)
    with scripted(pieces) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        with pytest.raises((StoreUnavailable, StoreFault)):
            read(backend)


def test_bytes_after_an_answer_are_not_taken_for_the_next_one() -> None:
    with scripted(answer(LENGTH, DATA + OK + b"Content-Length: 4\r\n\r\nevil"), answer(LENGTH)) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        assert [read(backend), read(backend)] == [DATA, DATA]
        assert server.connections == 2


def test_over_tls_bytes_after_an_answer_are_not_taken_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch, own_tls: ssl.SSLContext
) -> None:
    """There it may have been read and decrypted already, where no system call sees it."""
    evil = [OK + LENGTH + b"\r\n" + DATA[:4], DATA[4:] + OK + b"Content-Length: 4\r\n\r\nevil"]
    with scripted(evil, answer(LENGTH), tls=own_tls) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        assert [read(backend), read(backend)] == [DATA, DATA]
        assert server.connections == 2


@pytest.mark.parametrize(
    "odd",
    [
        [
            b"HTTP/1.1 103 Early Hints\r\n\r\n"
            + OK
            + b"Content-Length: 0\r\n\r\n"
            + OK
            + LENGTH
            + b"\r\n"
            + DATA
        ],
        [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" + OK + LENGTH + b"\r\n" + DATA],
        [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n" + DATA],
    ],
    ids=["an answer too many behind a word before one", "an answer too many", "a body where none belongs"],
)
def test_a_connection_is_not_used_again_after_an_answer_whose_end_is_unsure(
    odd: list[bytes | None],
) -> None:
    with scripted(odd, answer(LENGTH)) as server:
        host, port = server.endpoint.removeprefix("http://").split(":")
        pool = ConnectionPool(
            (host, int(port)), tls=None, connect_timeout_s=PATIENCE_S, read_timeout_s=PATIENCE_S
        )

        assert not isinstance(pool.request(b"GET /k HTTP/1.1\r\n\r\n"), Head)
        second = pool.request(b"GET /k HTTP/1.1\r\n\r\n")

        assert isinstance(second, Head)
        second.connection.close()
        assert server.connections == 2


def test_404_is_an_ordinary_answer_to_a_head_whatever_length_it_announces(
    by_boto: list[str],
) -> None:
    """Amazon announces a body in chunks, which an answer to a HEAD does not have."""
    none = [b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"]
    with scripted(none, [OK + b"Content-Length: 0\r\n\r\n"], none) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        assert [backend.size(KEY), backend.size(KEY)] == [None, None]

        assert by_boto == ["head_bucket"]
        assert server.connections == 2


def test_an_error_in_a_200_is_not_a_success(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, backend: S3Backend, by_boto: list[str]
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    fault = Answer(200, error(500, "InternalError").body)
    stub.answer = lambda request: fault if len(stub.requests) == 1 else good(request)

    backend.write(KEY, DATA)

    assert by_boto == ["put_object"]
    assert len(stub.requests) == 2


def test_a_long_answer_to_a_write_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    with scripted([*answer(b"Content-Length: 999999999999999\r\n"), None]) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        with pytest.raises(StoreUnavailable):
            backend.write(KEY, DATA)


def test_a_server_that_does_not_read_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pool = ConnectionPool(server.getsockname(), tls=None, connect_timeout_s=3, read_timeout_s=0.2)

        with pytest.raises(TimeoutError):
            pool.request(bytes(64_000_000))

        assert pool.idle == ()


def test_a_signal_does_not_disturb_the_wait_for_an_answer() -> None:
    signalled = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: signalled.set())
    try:
        with scripted([signalled, *answer(LENGTH)]) as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            signal.setitimer(signal.ITIMER_REAL, 0.1)

            assert read(backend) == DATA
            assert len(server.requests) == 1
    finally:
        signal.signal(signal.SIGALRM, before)


def pool_of(backend: S3Backend) -> ConnectionPool:
    """Return the connections of the direct path."""
    path = backend.bucket.client.paths.path_to(backend.bucket.name, backend.bucket.prefix)
    assert isinstance(path, DirectRequests)
    return path.pool


def test_connections_are_reused_unless_the_server_closed_them() -> None:
    with scripted(answer(LENGTH), answer(LENGTH), [*answer(LENGTH), None], answer(LENGTH)) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        for _ in range(3):
            assert read(backend) == DATA
        assert server.connections == 1
        (idle,) = pool_of(backend).idle
        # Until the end of the connection has arrived here.
        assert idle.recv(1, socket.MSG_PEEK) == b""
        assert read(backend) == DATA
        assert (server.connections, len(server.requests)) == (2, 4)
        assert backend.requests_sent == {"GetObject": 4}


def test_a_body_in_many_pieces_is_read_in_the_requested_sizes(stub: Stub, backend: S3Backend) -> None:
    body = bytes(range(256)) * 4096
    stub.answer = lambda _: Answer(200, body)
    for size in (1000, 65_536, len(body), len(body) + 1):
        with backend.open(KEY) as reader:
            pieces = list(iter(partial(reader.read, size), b""))
        assert b"".join(pieces) == body
        assert {len(piece) for piece in pieces[:-1]} <= {size}
    assert len(pool_of(backend).idle) == 1


def test_a_request_to_a_silent_server_times_out_and_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_clients, "READ_TIMEOUT_S", 0.2)
    with scripted([], answer(LENGTH)) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        assert read(backend) == DATA
        assert len(server.requests) == 2
        assert backend.requests_sent == {"GetObject": 2}


def test_a_body_that_stalls_is_unavailable_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_clients, "READ_TIMEOUT_S", 0.2)
    with scripted([OK + b"Content-Length: 100\r\n\r\nhalf"]) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        with pytest.raises(StoreUnavailable, match="the server sends nothing"):
            read(backend)


def test_a_short_body_that_ends_early_is_counted_and_not_retried() -> None:
    with scripted([OK + b"Content-Length: 100\r\n\r\nhalf", None], answer(LENGTH)) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        with pytest.raises(StoreUnavailable):
            backend.open(KEY)
        assert (len(server.requests), backend.requests_sent) == (1, {"GetObject": 1})
        assert pool_of(backend).idle == ()
        assert read(backend) == DATA


def test_a_short_body_in_pieces_is_in_memory_and_its_connection_is_used_again() -> None:
    pieces: list[bytes | None] = [OK + LENGTH + b"\r\n", DATA[:4], DATA[4:]]
    with scripted(pieces, answer(LENGTH)) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        assert isinstance(backend.open(KEY), io.BytesIO)
        assert read(backend) == DATA
        assert server.connections == 1


def test_after_a_body_stalled_nothing_more_of_it_can_be_read(
    monkeypatch: pytest.MonkeyPatch, own_tls: ssl.SSLContext
) -> None:
    monkeypatch.setattr(s3_clients, "READ_TIMEOUT_S", 0.2)
    given_up = threading.Event()
    pieces: list[bytes | threading.Event | None] = [
        OK + b"Content-Length: %d\r\n\r\nhalf" % LONG,
        b"more",
        given_up,
        b"rest",
    ]
    with scripted(pieces, tls=own_tls) as server:
        backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))

        with backend.open(KEY) as reader:
            with pytest.raises(StoreUnavailable):
                reader.read(LONG)
            given_up.set()
            with pytest.raises(StoreUnavailable):
                reader.read(4)


def test_many_threads_share_the_path_and_each_gets_its_own_answer(rclone_memory_s3: S3Server) -> None:
    url = parse_url(rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "some/prefix"))
    backend = open_backend(url)
    objects = {f"k/{n:03}": b"%d" % n * (n * 50) for n in range(200)}
    wrong: list[str] = []
    left = iter(objects.items())

    def work() -> None:
        for key, data in left:
            backend.write(key, data)
            with backend.open(key) as reader:
                if reader.read(len(data) + 1) != data or backend.size(key) != len(data):
                    wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert isinstance(backend, S3Backend)
    assert 1 <= len(pool_of(backend).idle) <= len(threads)
    assert backend.requests_sent == {"PutObject": 200, "GetObject": 200, "HeadObject": 200}


def test_a_forked_child_has_connections_of_its_own(rclone_memory_s3: S3Server) -> None:
    url = parse_url(rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "p"))
    backend = open_backend(url)
    backend.write("k/parent", b"parent")

    process = os.fork()
    if process == 0:
        try:
            for _ in range(20):
                backend.write("k/child", b"child")
                assert read(backend, "k/child") == b"child"  # type: ignore[arg-type]
            os._exit(0)
        except BaseException:
            os._exit(1)
    for _ in range(20):
        assert read(backend, "k/parent") == b"parent"  # type: ignore[arg-type]
    assert os.waitpid(process, 0)[1] == 0
    assert [found.key for found in backend.keys("k/")] == ["k/child", "k/parent"]


ODD_KEYS = [
    "a b",
    "a+b",
    "a%2Fb",
    "a&b",
    "a=b",
    "ü/ж",
    "q?x#y",
    "~t",
    "semi;colon",
    "comma,$@:!'()*",
    "<tag>&amp;",
]


@pytest.mark.parametrize("server", ["rclone_memory_s3", "moto_s3"])
@pytest.mark.parametrize("prefix", ["plain", "odd + prefix/ü%20=&", ""])
def test_every_server_takes_the_signature_whatever_is_in_a_key(
    request: pytest.FixtureRequest, by_boto: list[str], server: str, prefix: str
) -> None:
    """What strangers filed is listed as boto3 lists it."""
    s3_server: S3Server = request.getfixturevalue(server)
    bucket = s3_server.make_bucket()
    backend = S3Backend(Bucket(bucket, prefix, endpoint=s3_server.endpoint))
    keys = [f"x/{name}" for name in ODD_KEYS]
    for key in keys:
        backend.write(key, key.encode())

    for key in keys:
        assert read(backend, key) == key.encode()
        assert backend.size(key) == len(key.encode())
    listed = list(backend.keys("x/"))
    assert by_boto == []
    found = s3_server.client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/x/" if prefix else "x/")
    assert [(backend.bucket.prefix + key, size, modified) for key, size, modified in listed] == [
        (entry["Key"], entry["Size"], entry["LastModified"].timestamp()) for entry in found["Contents"]
    ]
    assert [one.key for one in listed] == sorted(keys, key=str.encode)
    assert [one.key for one in backend.keys("x/", start_after=listed[3].key)] == [
        one.key for one in listed[4:]
    ]


def test_a_session_token_is_signed(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, backend: S3Backend, by_boto: list[str]
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a/token+of=a&session")
    stub.answer = good

    assert read(backend) == DATA

    assert by_boto == []
    assert stub.requests[0].headers["X-Amz-Security-Token"] == "a/token+of=a&session"
    assert ";x-amz-security-token," in stub.requests[0].headers["Authorization"]


@pytest.fixture
def program(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A program that gives other credentials each time, for an hour, to the profile *renewed*."""
    program, count = tmp_path / "program", tmp_path / "count"
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = {"Version": 1, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": until}
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib\ncount = pathlib.Path({str(count)!r})\n"
        "count.write_text((count.read_text() if count.exists() else '') + 'x')\n"
        f"print(json.dumps({json.dumps(answer)} | {{'AccessKeyId': 'KEY%d' % len(count.read_text())}}))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config = tmp_path / "config"
    config.write_text(f"[profile renewed]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    return program


def expire(backend: S3Backend) -> None:
    """Let the credentials of *backend* expire."""
    credentials = backend.bucket.client.credentials
    assert credentials is not None
    credentials.current._expiry_time = datetime.now(UTC)


@pytest.mark.usefixtures("program")
def test_expired_credentials_are_renewed(stub: Stub, by_boto: list[str]) -> None:
    stub.answer = good
    backend = S3Backend(Bucket("bucket", endpoint=stub.endpoint, profile="renewed"))

    for _ in range(2):
        assert read(backend) == DATA
        assert read(backend) == DATA
        expire(backend)

    used = [
        request.headers["Authorization"].split("Credential=")[1].split("/")[0] for request in stub.requests
    ]
    assert by_boto == []
    assert used == ["KEY1", "KEY1", "KEY2", "KEY2"]


def test_a_request_without_credentials_is_not_counted(stub: Stub, program: Path) -> None:
    stub.answer = good
    backend = S3Backend(Bucket("bucket", endpoint=stub.endpoint, profile="renewed"))
    assert read(backend) == DATA
    expire(backend)
    program.write_text("#!/bin/sh\nexit 1\n")

    with pytest.raises(AccessDenied):
        read(backend)

    assert backend.requests_sent == {"GetObject": len(stub.requests)} == {"GetObject": 1}


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_where_a_proxy_is_set_boto3_does_everything(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, by_boto: list[str], variable: str
) -> None:
    monkeypatch.setenv(variable, stub.endpoint)
    monkeypatch.setenv("NO_PROXY", "")
    stub.answer = good

    assert read(S3Backend(Bucket("bucket", endpoint="http://storage.invalid:9000"))) == DATA

    assert by_boto == ["get_object"]


def test_with_an_unknown_header_boto3_does_everything(
    stub: Stub, backend: S3Backend, by_boto: list[str]
) -> None:
    def add(request, **_: object) -> None:
        request.headers["x-amz-expected-bucket-owner"] = "123456789012"

    backend.bucket.client.boto.meta.events.register_first("before-sign.s3", add)
    stub.answer = good

    assert read(backend) == DATA

    assert by_boto == ["get_object"]
    assert stub.requests[0].headers["x-amz-expected-bucket-owner"] == "123456789012"


@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_the_same_authorities_are_trusted_as_by_boto3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_boto: list[str], trusted: bool
) -> None:
    certificate, key = make_certificate(tmp_path)
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(tls=context) as stub:
        stub.answer = good
        backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
        if trusted:
            for name, call in CALLS.items():
                assert call(backend) == EXPECTED[name]
            assert by_boto == []
        else:
            with pytest.raises(StoreFault, match="CERTIFICATE_VERIFY_FAILED"):
                read(backend)
            assert stub.requests == []


@pytest.fixture
def own_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """TLS for a server that is trusted."""
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that vouches for itself; return its file and that of its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def test_a_server_that_asks_to_slow_down_is_sent_less(stub: Stub, backend: S3Backend) -> None:
    """It takes 200 requests a second, in tenths of a second; the threads would send thousands."""
    taken: Counter[int] = Counter()
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            tenth = int(time.monotonic() * 10)
            if taken[tenth] >= 20:
                return error(503, "SlowDown")
            taken[tenth] += 1
        return good(request)

    def call(_: int) -> bool:
        try:
            read(backend)
        except StoreUnavailable:
            return False
        return True

    stub.answer = answer
    with ThreadPoolExecutor(32) as threads:
        done = sum(threads.map(call, range(100)))

    assert done == taken.total() == 100
    assert backend.bucket.client.pace("bucket", "prefix/", "").per_second is not None
