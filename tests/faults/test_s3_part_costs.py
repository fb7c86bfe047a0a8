"""
What the parts of an upload take: memory, which nobody writes to before the server has the part, and requests.

The memory is released as soon as the part was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from itertools import repeat

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct.paths import Paths
from snapferry.stores.backends.s3.direct.requests import DirectRequests
from snapferry.stores.backends.s3.objects import multipart
from snapferry.stores.backends.s3.objects.multipart import S3Upload, send_part
from snapferry.stores.hashing import digest
from tests.faults.stub_s3 import Answer, Request, Stub, error
from tests.integration.processes import PATIENCE_S

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

PART_BYTES = 20_000
PARTS = 24
DATA = b"".join(number.to_bytes(4, "big") for number in range(PARTS * PART_BYTES // 4))
KEY = object_key(digest(DATA))
CREATED = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b'<CompleteMultipartUploadResult><ETag>"whole-1"</ETag></CompleteMultipartUploadResult>'


class Lender:
    """Lends the parts of `DATA`, and overwrites the memory of each as soon as it is back."""

    def __init__(self) -> None:
        self.lent = 0
        self.back = 0

    def read(self, size: int, /) -> bytes:
        raise AssertionError("the parts are to be lent")

    def give(self) -> bytearray:
        piece = bytearray(DATA[self.lent * PART_BYTES : (self.lent + 1) * PART_BYTES])
        self.lent += bool(piece)
        return piece

    def take_back(self, piece: bytearray, /) -> None:
        self.back += 1
        piece[:] = bytes(len(piece))


class CountingLimiter:
    bytes = 0

    def acquire_requests(self, count: int, /) -> None:
        return None

    def acquire_bytes(self, count: int, /) -> None:
        self.bytes += count

    def refund_bytes(self, count: int, /) -> None:
        self.bytes -= count


@pytest.fixture
def upload(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Upload]:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    monkeypatch.setattr(multipart, "part_sizes", lambda _: repeat(PART_BYTES))
    with S3Upload(Bucket("bucket", "prefix", endpoint=stub.endpoint), KEY, len(DATA)) as upload:
        yield upload


def answer_to(request: Request) -> Answer:
    if "uploads" in request.query:
        return Answer(200, CREATED)
    if request.method == "POST":
        return Answer(200, COMPLETED)
    return Answer(200, DATA) if request.method == "GET" else Answer()


def test_what_is_sent_again_after_a_fault_is_the_part(stub: Stub, upload: S3Upload) -> None:
    faults = [None, error(500, "InternalError"), Answer(503, cut=True), error(400, "BadDigest")]
    came: set[int] = set()
    wrong: list[int] = []

    def answer(request: Request) -> Answer:
        if "partNumber" not in request.query:
            return answer_to(request)
        number = int(request.query["partNumber"])
        if request.body != DATA[(number - 1) * PART_BYTES : number * PART_BYTES]:
            wrong.append(number)
        again = number in came
        came.add(number)
        return (None if again else faults[number % len(faults)]) or Answer()

    stub.answer = answer
    lender, seen = Lender(), bytearray()

    assert upload.take(lender, seen.extend)
    upload.commit()

    assert wrong == []
    assert stub.operations().count("PUT uploadId partNumber") == PARTS + PARTS * 3 // 4
    assert seen == DATA
    assert (lender.lent, lender.back) == (PARTS, PARTS)


def test_a_part_that_was_sent_is_released_when_the_next_one_comes(stub: Stub, upload: S3Upload) -> None:
    stub.answer = answer_to
    lender = Lender()
    out: list[int] = []

    def sent(_: object) -> None:
        wait([sending for _, sending in upload._in_flight], PATIENCE_S)
        out.append(lender.lent - lender.back)

    upload.take(lender, sent)

    # The part that is shown, the one before it, which is complete, and the last one that was sent.
    assert max(out) <= 3


def test_a_part_that_only_boto3_can_send_is_counted_and_limited_once(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Paths, "_template_of_part", lambda *_: None)
    bucket, limiter = Bucket("bucket", "prefix", endpoint=stub.endpoint), CountingLimiter()
    bucket.limit_rate(limiter)

    send_part(bucket, KEY, "u", 1, DATA, checksum=False)

    assert bucket.requests_sent == {"UploadPart": 1}
    assert limiter.bytes == len(DATA)


def test_credentials_that_are_renewed_meanwhile_do_not_end_the_direct_path_for_parts(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, by_boto: list[str]
) -> None:
    bucket = Bucket("bucket", "prefix", endpoint=stub.endpoint)
    path = bucket.client.paths.path_to("bucket", "prefix/")
    assert isinstance(path, DirectRequests)
    make = path._part._make

    def renew(headers: Mapping[str, str]) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
        credentials = bucket.client.credentials
        assert credentials is not None
        assert credentials.renew(credentials.get_frozen_credentials(), wait_s=1)
        path._part._make = make

    path._part._make = renew

    for number in (1, 2):
        send_part(bucket, KEY, "u", number, DATA, checksum=False)

    assert by_boto == ["upload_part"]
    assert "Credential=renewed/" in stub.requests[-1].headers["Authorization"]
