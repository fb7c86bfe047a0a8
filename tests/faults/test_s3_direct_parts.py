"""Parts of uploads on the direct path: signed and hashed once, and every odd answer is left to boto3."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import md5, sha256
from pathlib import Path
from typing import BinaryIO

import pytest
from botocore.exceptions import ConnectionClosedError

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients
from snapferry.stores.backends.s3.direct import sending
from snapferry.stores.backends.s3.direct.requests import DirectRequests
from snapferry.stores.backends.s3.direct_path import Fallback, NewPart, Response
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.backends.s3.http.sockets import PlainSocket, TLSSocket
from snapferry.stores.backends.s3.objects.multipart import SentPart, send_part
from snapferry.stores.backends.s3.sizes import EXPECT_BYTES
from snapferry.stores.errors import IntegrityError, StoreUnavailable
from snapferry.stores.hashing import digest
from tests.faults.stub_s3 import Answer, Stub, error, serving
from tests.faults.test_s3_direct import make_certificate
from tests.servers import S3Server, forget_clients

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

PART = bytearray(b"0123456789abcdef" * (EXPECT_BYTES // 8))
KEY = object_key(digest(bytes(PART)))
# What a signature must not change: it goes into the URL escaped.
UPLOAD = "id+of/an=upload~1"
NEW = NewPart(UPLOAD, 1, PART, sha256(PART).digest())
MD5 = md5(PART, usedforsecurity=False).hexdigest()
OK = b'HTTP/1.1 200 OK\r\nETag: "' + MD5.encode() + b'"\r\nContent-Length: 0\r\n\r\n'
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REFUSED = b"<Error><Code>AccessDenied</Code></Error>"
DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(REFUSED), REFUSED)


@pytest.fixture
def bucket(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    return Bucket("bucket", "prefix", endpoint=stub.endpoint)


def send(bucket: Bucket, *, checksum: bool = False, part: bytearray = PART) -> SentPart:
    return send_part(bucket, KEY, UPLOAD, 7, part, checksum=checksum)


def path_of(bucket: Bucket) -> DirectRequests:
    path = bucket.client.paths.path_to("bucket", "prefix/")
    assert isinstance(path, DirectRequests)
    return path


@pytest.mark.parametrize("checksum", [False, True])
def test_a_part_is_sent_whole_with_one_digest_for_all_uses(
    stub: Stub, bucket: Bucket, by_boto: list[str], monkeypatch: pytest.MonkeyPatch, checksum: bool
) -> None:
    hashed: list[int] = []

    def noted(data: bytearray) -> object:
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr("snapferry.stores.backends.s3.objects.multipart.hashlib.sha256", noted)

    sent = send(bucket, checksum=checksum)

    (request,) = stub.requests
    assert by_boto == []
    assert hashed == [len(PART)]
    assert request.query == {"partNumber": "7", "uploadId": UPLOAD}
    assert request.body == PART
    assert request.headers["X-Amz-Content-SHA256"] == sha256(PART).hexdigest()
    assert ("x-amz-checksum-sha256" in request.headers) == checksum == ("ChecksumSHA256" in sent.listed)
    assert request.headers["Expect"] == "100-continue"
    assert bucket.requests_sent == {"UploadPart": 1}


def test_an_etag_in_capital_letters_is_listed_as_the_server_sends_it(stub: Stub, bucket: Bucket) -> None:
    stub.answer = lambda _: Answer(headers={"ETag": f'"{MD5.upper()}"'})

    sent = send(bucket)

    assert sent.listed["ETag"] == f'"{MD5.upper()}"'
    assert sent.piece == (len(PART), MD5)


def test_with_the_etag_of_other_bytes_the_part_is_sent_again(stub: Stub, bucket: Bucket) -> None:
    send(bucket)
    stub.answer = lambda _: Answer(headers={"ETag": f'"{"0" * 32}"'})
    stub.requests.clear()
    # As after the detection for a server whose ETag is an MD5.
    bucket.features.parts.confirmation = Confirmation.ETAG

    with pytest.raises(IntegrityError):
        send(bucket)

    assert [request.body == PART for request in stub.requests] == [True] * 3


@pytest.mark.parametrize("code", ["BadDigest", "XAmzContentChecksumMismatch"])
def test_a_part_whose_checksum_is_refused_is_sent_again(stub: Stub, bucket: Bucket, code: str) -> None:
    answers = iter([error(400, code), Answer()])
    stub.answer = lambda _: next(answers)

    assert send(bucket, checksum=True).piece.length == len(PART)
    assert [request.body == PART for request in stub.requests] == [True, True]


@pytest.mark.parametrize(
    "fault",
    [
        error(500, "InternalError"),
        error(503, "SlowDown"),
        error(400, "RequestTimeout"),
        Answer(cut=True, length=9),
    ],
)
def test_after_a_fault_boto3_sends_the_part_again_and_the_next_one_is_direct(
    stub: Stub, bucket: Bucket, by_boto: list[str], fault: Answer
) -> None:
    answers = iter([fault])
    stub.answer = lambda _: next(answers, Answer())

    send(bucket)
    send(bucket)

    assert len(by_boto) == 1
    assert [request.body == PART for request in stub.requests] == [True] * 3
    assert bucket.requests_sent == {"UploadPart": 3}


def test_a_server_that_asks_to_slow_down_is_sent_less(stub: Stub, bucket: Bucket) -> None:
    answers = iter([error(503, "SlowDown")])
    stub.answer = lambda _: next(answers, Answer())
    send(bucket)

    assert bucket._in_process().pace.per_second is not None


def test_a_part_without_an_etag_is_a_fault(stub: Stub, bucket: Bucket) -> None:
    stub.answer = lambda _: Answer(no_etag=True)

    with pytest.raises(StoreUnavailable):
        send(bucket)


def test_an_error_in_a_200_is_not_a_success(stub: Stub, bucket: Bucket) -> None:
    answers = iter([Answer(200, b"<Error><Code>InternalError</Code></Error>")])
    stub.answer = lambda _: next(answers, Answer())

    send(bucket)

    assert len(stub.requests) == 2


def trusted_tls(monkeypatch: pytest.MonkeyPatch, folder: Path) -> ssl.SSLContext:
    """Return the TLS of a server whose certificate clients trust from now on."""
    certificate, key = make_certificate(folder)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextmanager
def answering(
    serve: Callable[[socket.socket, BinaryIO], None], tls: ssl.SSLContext | None = None
) -> Iterator[Bucket]:
    """Call *serve* with each connection when the head of a request has come on it, and close it afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    # A reset throws away what waits to be sent; so nothing may wait for an acknowledgement.
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection = tls.wrap_socket(accepted, server_side=True) if tls else accepted
                    with connection, connection.makefile("rb") as incoming:
                        while incoming.readline().strip():
                            pass
                        serve(connection, incoming)

        server = threading.Thread(target=accept, daemon=True)
        server.start()
        try:
            yield Bucket("bucket", "prefix", endpoint=endpoint)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
            forget_clients(endpoint)


# What a server says before it has read any of the body.
EARLY = {
    "an error in place of 100": [DENIED],
    "an error in two pieces": [DENIED[:15], DENIED[15:]],
    "an error after 100": [CONTINUE + DENIED],
    "an error after another interim answer": [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + DENIED],
}


@pytest.mark.parametrize("name", EARLY)
def test_an_error_before_the_body_is_the_answer_and_ends_the_connection(name: str) -> None:
    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        for piece in EARLY[name]:
            connection.sendall(piece)
        # Until the client closes: what it may have sent of the body is not lost with a reset.
        while incoming.read(EXPECT_BYTES):
            pass

    with answering(serve) as bucket:
        with pytest.raises(Fallback) as found:
            path_of(bucket).put_part(KEY, NEW)

        assert path_of(bucket).pool.idle == ()
    assert isinstance(found.value.outcome, Response)
    assert (found.value.outcome.status, found.value.outcome.body) == (403, REFUSED)


def test_an_error_in_the_middle_of_the_body_is_the_answer() -> None:
    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        connection.sendall(CONTINUE)
        incoming.read(EXPECT_BYTES)
        connection.sendall(DENIED)
        while incoming.read(EXPECT_BYTES):
            pass

    part = bytearray(64 * EXPECT_BYTES)
    with answering(serve) as bucket, pytest.raises(Fallback) as found:
        path_of(bucket).put_part(KEY, NewPart(UPLOAD, 1, part, sha256(part).digest()))

    assert isinstance(found.value.outcome, Response)
    assert found.value.outcome.status == 403


@pytest.mark.parametrize("over_tls", [False, True])
def test_an_error_before_a_reset_is_the_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, over_tls: bool
) -> None:
    # Nothing is noticed between two blocks: the error comes while one is sent.
    for kind in (PlainSocket, TLSSocket):
        monkeypatch.setattr(kind, "recv_within", lambda *_: None)

    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        incoming.read(1)
        connection.sendall(CONTINUE + DENIED)

    part = bytearray(64 * EXPECT_BYTES)
    context = trusted_tls(monkeypatch, tmp_path) if over_tls else None
    with answering(serve, context) as bucket, pytest.raises(Fallback) as found:
        path_of(bucket).put_part(KEY, NewPart(UPLOAD, 1, part, sha256(part).digest()))

    assert isinstance(found.value.outcome, Response)
    assert found.value.outcome.status == 403


def test_a_success_before_the_body_is_not_believed() -> None:
    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        connection.sendall(OK)
        incoming.read(1)

    with answering(serve) as bucket:
        with pytest.raises(Fallback) as found:
            path_of(bucket).put_part(KEY, NEW)

        assert path_of(bucket).pool.idle == ()
    assert isinstance(found.value.outcome, ConnectionClosedError)


@pytest.mark.parametrize("read_bytes", [0, EXPECT_BYTES])
def test_after_a_reset_in_the_middle_boto3_sends_the_part_again(
    monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    came: list[bytes] = []

    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        connection.sendall(CONTINUE)
        if not came:
            came.append(incoming.read(read_bytes))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            came.append(incoming.read(len(PART)))
            connection.sendall(OK)

    with answering(serve) as bucket:
        assert send(bucket).listed["ETag"] == f'"{MD5}"'

    assert len(came[0]) == read_bytes
    assert came[1:] == [PART]


def test_a_server_that_never_says_100_gets_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "CONTINUE_S", 0.01)
    came = bytearray()

    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        came.extend(incoming.read(len(PART)))
        # Late, as from a server that says it when it reads the body.
        connection.sendall(CONTINUE + OK)

    with answering(serve) as bucket:
        assert path_of(bucket).put_part(KEY, NEW) == f'"{MD5}"'

    assert came == PART


def test_a_server_that_drips_before_100_gets_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "CONTINUE_S", 0.05)
    most, drips = 300, 0

    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        nonlocal drips
        connection.sendall(b"HTTP/1.1 100 Continue\r\nX-Long: ")
        while drips < most and not select.select([connection], [], [], 0.01)[0]:
            connection.sendall(b"x")
            drips += 1
        connection.sendall(b"\r\n\r\n")
        incoming.read(len(PART))
        connection.sendall(OK)

    with answering(serve) as bucket:
        assert path_of(bucket).put_part(KEY, NEW) == f'"{MD5}"'

    assert drips < most


@pytest.mark.parametrize(
    "interim",
    [b"HTTP/1.1 100 Continue\n\n", b"HTTP/1.1 100\n\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\n"],
)
@pytest.mark.parametrize("late", [False, True])
def test_an_interim_answer_may_end_its_lines_with_lf(
    monkeypatch: pytest.MonkeyPatch, interim: bytes, late: bool
) -> None:
    monkeypatch.setattr(sending, "CONTINUE_S", 0.01)
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 1)

    def serve(connection: socket.socket, incoming: BinaryIO) -> None:
        connection.sendall(b"" if late else interim)
        incoming.read(len(PART))
        connection.sendall(interim + OK if late else OK)

    with answering(serve) as bucket:
        assert path_of(bucket).put_part(KEY, NEW) == f'"{MD5}"'


def test_parts_go_over_tls_which_has_messages_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_boto: list[str]
) -> None:
    steps: list[int] = []
    send_step = TLSSocket._send

    def noted(self: TLSSocket, data: bytes | memoryview, *flags: int) -> int:
        steps.append(len(data))
        return send_step(self, data, *flags)

    monkeypatch.setattr(TLSSocket, "_send", noted)
    with serving(tls=trusted_tls(monkeypatch, tmp_path)) as stub:
        bucket = Bucket("bucket", "prefix", endpoint=stub.endpoint)

        for _ in range(2):
            send(bucket)

        assert by_boto == []
        assert [request.body == PART for request in stub.requests] == [True, True]
    # OpenSSL does not tell how much of a step it has sent, and a slow line must send each in time.
    assert max(steps) <= 64 * 1024


@pytest.mark.parametrize("server", ["rclone_memory_s3", "moto_s3"])
@pytest.mark.parametrize("prefix", ["odd + prefix/ü%20=&", ""])
def test_every_server_takes_the_signature_of_parts(
    request: pytest.FixtureRequest, by_boto: list[str], server: str, prefix: str
) -> None:
    s3_server: S3Server = request.getfixturevalue(server)
    backend = S3Backend(Bucket(s3_server.make_bucket(), prefix, endpoint=s3_server.endpoint))
    data = bytes(PART) * 8 + b"the end"
    key = object_key(digest(data))

    with backend.upload(key, len(data)) as upload:
        upload.write(data)
        upload.commit()

    assert by_boto.count("create_multipart_upload") > 0
    # Those that find out what the server checks are boto3's.
    assert backend.requests_sent["UploadPart"] - by_boto.count("upload_part") >= 2
    with backend.open(key) as reader:
        assert reader.read(len(data) + 1) == data
