"""That what a bucket holds is what was sent, at servers that check nothing themselves, and at those that do."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from snapferry.stores.address import manifest_key, object_key, parse_snapshot_id
from snapferry.stores.backends.s3.backend import S3Backend, open_s3
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients as s3_clients
from snapferry.stores.backends.s3.diagnosis.permissions import Probe
from snapferry.stores.backends.s3.objects import confirm
from snapferry.stores.backends.s3.objects.small import put, put_by_boto
from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES
from snapferry.stores.diagnosis.findings import Level
from snapferry.stores.errors import IntegrityError, StoreError, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from tests.conformance.contract import noise
from tests.counting import counting_proxy
from tests.faults.stub_s3 import Answer, Request, Stub, error
from tests.servers import S3Server

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

DATA = b"an object"
KEY = object_key(digest(DATA))
PROBE = f"/bucket/prefix/{KEY.partition('/')[0]}/.snapferry-probe/digests"
RIGHT = base64.b64encode(hashlib.sha256(DATA).digest()).decode()

Alter = Callable[[str, str, bytes], bytes]


def flipped(body: bytes, at: int = 0) -> bytes:
    """Return *body* with one bit changed."""
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] if body else body


class Flips:
    """Flips a bit in some bodies of objects and parts on their way to the server."""

    def __init__(self, share: float, seed: int = 0) -> None:
        self._share = share
        self._chance = random.Random(seed)
        self.count = 0

    def __call__(self, operation: str, path: str, body: bytes) -> bytes:
        if operation not in {"PutObject", "UploadPart"} or "probe" in path:
            return body
        if self._chance.random() >= self._share:
            return body
        self.count += 1
        return flipped(body, self._chance.randrange(len(body)))


def held(server: S3Server, bucket: str) -> dict[str, bytes]:
    """Return what the server has, asked past the proxy."""
    found = {}
    for page in server.client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            found[entry["Key"]] = server.client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
    return found


@pytest.mark.parametrize("name", ["rclone_memory_s3", "rclone_s3", "moto_s3"])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_nothing_that_was_altered_on_the_way_is_counted_as_copied_or_stays(
    request: pytest.FixtureRequest, name: str, share: float
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = server.make_bucket()
    objects = {digest(data): data for data in (b"%d" % number * 50 for number in range(40))}
    flips = Flips(share)
    copied = set()
    with counting_proxy(server, alter=flips) as (proxy, _):
        store = SnapshotStore(open_s3(parse_url(proxy.url(bucket, "p"))))
        for address, data in objects.items():
            try:
                store.put_object(address, data)
            except (IntegrityError, StoreUnavailable):
                continue
            else:
                copied.add(address)
        assert isinstance(store.objects, S3Backend)
        confirmed = store.objects.confirmed

    there = {
        key.removeprefix("p/.objects/").replace("/", ""): data for key, data in held(server, bucket).items()
    }
    assert flips.count
    assert {address: digest(data) for address, data in there.items()} == {a: a for a in copied}
    assert confirmed == ({"etag": len(copied)} if copied else {})
    assert (share == 1.0) == (not copied)


@pytest.mark.parametrize("by", ["direct path", "boto3"])
def test_an_object_that_is_altered_on_the_way_does_not_replace_the_right_one(
    rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Two jobs may write an object at the same time, and one of them publish it."""
    bucket = rclone_s3.make_bucket()
    assert rclone_s3.directory is not None
    path = rclone_s3.directory / bucket / "p" / KEY
    if by == "boto3":
        monkeypatch.setattr(Bucket, "direct_or_boto", lambda *arguments, **_: arguments[3]())
    seen: list[bytes] = []

    def alter(operation: str, _: str, body: bytes) -> bytes:
        if operation == "PutObject" and len(attempts) < confirm.SENDS:
            attempts.append(body)
            return flipped(body)
        return body

    attempts: list[bytes] = []
    open_s3(parse_url(rclone_s3.url(bucket, "p"))).write(KEY, DATA)
    with counting_proxy(rclone_s3, alter=alter) as (proxy, _):
        backend = open_s3(parse_url(proxy.url(bucket, "p")))

        def looking(*arguments: Any) -> str:
            try:
                return put(*arguments)
            finally:
                seen.append(path.read_bytes())

        monkeypatch.setattr(confirm, "put", looking)
        with suppress(StoreError):
            backend.write(KEY, DATA)

    assert attempts
    assert set(seen) == {DATA}
    assert path.read_bytes() == DATA


def test_a_manifest_that_is_altered_on_the_way_is_seen_by_nobody(
    rclone_memory_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server compares nothing else, and would show it until it is sent again, or for ever if its writer dies."""
    server = rclone_memory_s3
    bucket = server.make_bucket()
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    deleted: list[str] = []
    monkeypatch.setattr(confirm, "delete", lambda _, key: deleted.append(key))
    with counting_proxy(server, alter=Flips(1.0)) as (proxy, _):
        backend = open_s3(parse_url(proxy.url(bucket, "p")))
        with pytest.raises(StoreError):
            backend.write(manifest_key(parse_snapshot_id(digest(DATA))), DATA)

    assert (held(server, bucket), deleted) == ({}, [])


def test_without_faults_no_request_is_added_and_no_probe_is_written(rclone_memory_s3: S3Server) -> None:
    bucket = rclone_memory_s3.make_bucket()
    with counting_proxy(rclone_memory_s3) as (proxy, received):
        backend = open_s3(parse_url(proxy.url(bucket, "p")))
        for number in range(20):
            backend.write(object_key(digest(b"%d" % number)), b"%d" % number)
        with backend.upload(KEY, 2 * MIN_PART_BYTES) as upload:
            upload.write(noise(MIN_PART_BYTES + 5))
            upload.commit()

    assert received == {
        "PutObject": 20, "CreateMultipartUpload": 1, "UploadPart": 2, "CompleteMultipartUpload": 1
    }  # fmt: skip
    assert backend.confirmed == {"etag": 21}


@pytest.mark.parametrize("name", ["rclone_memory_s3", "moto_s3"])
def test_a_part_that_was_altered_is_sent_again_before_the_object_is_seen(
    request: pytest.FixtureRequest, name: str
) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = server.make_bucket()
    data = noise(3 * MIN_PART_BYTES)
    # Several parts arrive at a time.
    first = iter([True])

    def alter(operation: str, path: str, body: bytes) -> bytes:
        return flipped(body, 77) if operation == "UploadPart" and next(first, False) else body

    def copy() -> None:
        with backend.upload(KEY, len(data)) as upload:
            upload.write(data)
            upload.commit()

    with counting_proxy(server, alter=alter) as (proxy, _):
        backend = open_s3(parse_url(proxy.url(bucket, "p")))
        if name.startswith("rclone"):
            # It takes no part twice, so the upload is made again.
            with pytest.raises(StoreError) as raised:
                copy()
            assert raised.value.transient
        copy()

    assert held(server, bucket) == {f"p/{KEY}": data}
    assert backend.confirmed == {"etag": 1}


@pytest.mark.parametrize("name", ["rclone_memory_s3", "moto_s3"])
def test_an_upload_whose_parts_stay_wrong_leaves_nothing(request: pytest.FixtureRequest, name: str) -> None:
    server: S3Server = request.getfixturevalue(name)
    bucket = server.make_bucket()
    with counting_proxy(server, alter=Flips(1.0)) as (proxy, _):
        backend = open_s3(parse_url(proxy.url(bucket, "p")))
        with (
            pytest.raises((IntegrityError, StoreUnavailable)),
            backend.upload(KEY, 2 * MIN_PART_BYTES) as upload,
        ):
            upload.write(noise(2 * MIN_PART_BYTES))
            upload.commit()

    assert held(server, bucket) == {}
    assert server.unfinished_uploads(bucket) == []
    assert backend.confirmed == {}


class Server:
    """
    A server of a test: *checks* what goes along with a body, gives *etag* for it, and keeps what it took.

    What comes to it is altered where *alter* says so, before anything is checked.
    """

    def __init__(self, checks: str = "", etag: Callable[[bytes], str] | None = None) -> None:
        self.checks = checks
        self.etag = etag or (lambda body: hashlib.md5(body, usedforsecurity=False).hexdigest())
        self.alter: Callable[[Request], bytes] = lambda request: request.body
        self.kept: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.denied: set[str] = set()
        self.refused_header = ""

    def __call__(self, request: Request) -> Answer:
        self.requests.append((request.method, request.path))
        if request.method in self.denied:
            return error(403, "AccessDenied")
        if request.method == "GET":
            body = self.kept.get(request.path)
            return error(404, "NoSuchKey") if body is None else Answer(200, body)
        if request.method == "DELETE":
            self.kept.pop(request.path, None)
            return Answer(204)
        if self.refused_header and self.refused_header in request.headers:
            return error(501, "NotImplemented")
        body = self.alter(request)
        announced = {
            "sha256": (request.headers.get("X-Amz-Content-SHA256"), hashlib.sha256(body).hexdigest()),
            "checksum": (
                request.headers.get("x-amz-checksum-sha256"),
                base64.b64encode(hashlib.sha256(body).digest()).decode(),
            ),
            "md5": (
                request.headers.get("Content-MD5"),
                base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
            ),
        }
        said, true = announced.get(self.checks, (None, None))
        if said is not None and said != true:
            return error(400, "BadDigest")
        self.kept[request.path] = body
        return Answer(200, headers={"ETag": f'"{self.etag(body)}"'})


def of_kms(body: bytes) -> str:
    """An ETag that looks like an MD5 and is none."""
    return hashlib.sha256(b"salt" + body).hexdigest()[:32]


def write_ten(stub: Stub, server: Server, **settings: object) -> S3Backend:
    stub.answer = server
    backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint, **settings))  # type: ignore[arg-type]
    for number in range(10):
        backend.write(object_key(digest(b"%d" % number)), b"%d" % number)
    return backend


@pytest.mark.parametrize(
    ("checks", "etag", "proof", "more"),
    [
        ("", None, "etag", []),
        ("sha256", of_kms, "digest", [("PUT", PROBE)]),
        ("checksum", of_kms, "digest", [("PUT", PROBE)]),
        ("checksum", lambda _: "", "digest", [("PUT", PROBE)]),
        ("md5", of_kms, "digest", [("PUT", PROBE)] * 4 + [("DELETE", PROBE)]),
    ],
)
def test_a_server_is_asked_once_what_it_checks(
    stub: Stub, checks: str, etag: Callable[[bytes], str] | None, proof: str, more: list[tuple[str, str]]
) -> None:
    server = Server(checks, etag)

    backend = write_ten(stub, server)

    assert backend.confirmed == {proof: 10}
    assert [one for one in server.requests if one[1] == PROBE] == more
    # The first object at a server that wants Content-MD5 was sent before that was known.
    assert sum(one[0] == "PUT" and one[1] != PROBE for one in server.requests) == 10 + (checks == "md5")
    assert sorted(server.kept.values()) == [b"%d" % number for number in range(10)]
    assert sum(backend.requests_sent.values()) == len(server.requests)


def test_where_nothing_is_checked_and_the_etag_is_no_md5_each_object_is_read_back(stub: Stub) -> None:
    server = Server("", of_kms)

    backend = write_ten(stub, server)

    assert backend.confirmed == {"read_back": 10}
    assert sum(one[0] == "GET" for one in server.requests) == 10
    assert PROBE not in server.kept


@pytest.mark.parametrize("times", [1, 2, 1000])
@pytest.mark.parametrize("etag", [None, of_kms, lambda _: ""])
def test_bytes_that_arrive_wrong_are_sent_again_and_deleted_if_they_stay_wrong(
    stub: Stub, times: int, etag: Callable[[bytes], str] | None
) -> None:
    server = Server("", etag)
    left = [times]

    def alter(request: Request) -> bytes:
        if request.path == PROBE or not left[0]:
            return request.body
        left[0] -= 1
        return flipped(request.body)

    server.alter = alter
    stub.answer = server
    backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))

    if times < confirm.SENDS:
        backend.write(KEY, DATA)
        assert list(server.kept.values()) == [DATA]
    else:
        with pytest.raises(IntegrityError):
            backend.write(KEY, DATA)
        assert server.kept == {}
        assert backend.confirmed == {}


def test_wrong_bytes_do_not_stay_where_sending_them_again_fails(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    server = Server()
    server.alter = lambda request: flipped(request.body)
    puts: list[str] = []

    def answer(request: Request) -> Answer:
        if request.method == "PUT" and request.path != PROBE:
            puts.append(request.path)
            if len(puts) > 1:
                return error(503, "SlowDown")
        return server(request)

    stub.answer = answer
    backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))

    with pytest.raises(StoreError):
        backend.write(KEY, DATA)

    assert server.kept == {}


def test_wrong_bytes_that_cannot_be_deleted_are_named(stub: Stub) -> None:
    server = Server()
    server.alter = lambda request: flipped(request.body) if request.path != PROBE else request.body
    server.denied = {"DELETE"}
    stub.answer = server

    with pytest.raises(IntegrityError, match="cannot be deleted"):
        S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint)).write(KEY, DATA)


def test_a_store_that_gives_no_proof_says_so(stub: Stub) -> None:
    server = Server("", of_kms)
    server.denied = {"GET"}

    assert write_ten(stub, server).confirmed == {"none": 10}


def test_reading_back_can_be_turned_off(stub: Stub) -> None:
    server = Server("", of_kms)

    backend = write_ten(stub, server, read_back=False)

    assert backend.confirmed == {"none": 10}
    assert not any(one[0] == "GET" for one in server.requests)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_upload_in_parts_is_read_back_where_nothing_else_proves_it(stub: Stub, share: float) -> None:
    data = noise(2 * MIN_PART_BYTES + 3)
    parts: dict[str, bytes] = {}
    whole: list[bytes] = []
    deleted: list[str] = []
    server = Server("", of_kms)

    def answer(request: Request) -> Answer:
        operation = request.operation
        if operation == "POST uploads":
            return Answer(200, b"<R><UploadId>u</UploadId></R>")
        if operation == "PUT uploadId partNumber" and request.path == PROBE:
            return server(request)
        if operation == "PUT uploadId partNumber":
            body = flipped(request.body) if share and request.query["partNumber"] == "2" else request.body
            parts[request.query["partNumber"]] = body
            return Answer(200, headers={"ETag": f'"{of_kms(body)}"'})
        if operation == "POST uploadId":
            whole.append(b"".join(parts[number] for number in sorted(parts)))
            return Answer(200, b"<R><ETag>&quot;0123456789abcdef0123456789abcdef-3&quot;</ETag></R>")
        if request.method == "GET":
            return Answer(200, whole[0])
        if request.method == "DELETE" and request.path != PROBE:
            deleted.append(request.path)
        return server(request)

    stub.answer = answer
    backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))

    with backend.upload(KEY, len(data)) as upload:
        upload.write(data)
        if share:
            with pytest.raises(IntegrityError):
                upload.commit()
        else:
            upload.commit()

    assert deleted == ([f"/bucket/prefix/{KEY}"] if share else [])
    assert backend.confirmed == ({} if share else {"read_back": 1})


@pytest.mark.parametrize("checks", ["sha256", "checksum", "md5"])
@pytest.mark.parametrize("of_parts", [False, True])
def test_what_a_server_checks_of_objects_says_nothing_of_parts(
    stub: Stub, checks: str, of_parts: bool
) -> None:
    """Parts are altered on the way to a server that checks digests, of objects alone or of parts as well."""
    data = noise(2 * MIN_PART_BYTES + 3)
    objects, parts = Server(checks, of_kms), Server(checks if of_parts else "", of_kms)
    altered: list[str] = []

    def alter(request: Request) -> bytes:
        # Parts arrive at the same time: what is altered is told by its number, and once.
        if request.path == PROBE or not request.path.endswith("/2") or altered:
            return request.body
        altered.append(request.path)
        return flipped(request.body)

    parts.alter = alter

    def answer(request: Request) -> Answer:
        operation, path = request.operation, request.path
        if operation == "POST uploads":
            algorithm = {"x-amz-checksum-algorithm": "SHA256"}
            return Answer(200, b"<R><UploadId>u</UploadId></R>", algorithm)
        if operation == "PUT uploadId partNumber":
            number = request.query["partNumber"]
            return parts(replace(request, path=path if path == PROBE else f"{path}/{number}"))
        if operation == "POST uploadId":
            whole = b"".join(parts.kept[f"{path}/{number}"] for number in (1, 2, 3))
            objects.kept[path] = whole
            return Answer(200, b"<R><ETag>&quot;e&quot;</ETag></R>")
        return objects(request)

    stub.answer = answer
    backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
    backend.write(object_key(digest(b"first")), b"first")
    assert backend.confirmed == {"digest": 1}

    def send() -> None:
        with backend.upload(KEY, len(data)) as upload:
            upload.write(data)
            upload.commit()

    path = f"/bucket/prefix/{KEY}"
    if of_parts:
        # One that checks refuses the part. It may be sent again, if nothing was learnt of parts before.
        with suppress(StoreUnavailable):
            send()
        assert objects.kept.get(path) in (None, data)
    else:
        # Of one that does not, the whole is read back.
        with pytest.raises(IntegrityError):
            send()
        assert path not in objects.kept
    send()
    assert objects.kept[path] == data
    assert altered, "a part was altered"
    proofs = dict(backend.confirmed)
    assert proofs.pop("digest") >= (2 if of_parts else 1)
    assert proofs == ({} if of_parts else {"read_back": 1})


class TestChecksums:
    def test_they_go_along_by_both_ways(self, stub: Stub) -> None:
        stub.answer = Server()
        backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
        backend.write(KEY, DATA)
        put_by_boto(backend.bucket, KEY, DATA, checksum=True)

        assert [request.headers.get("x-amz-checksum-sha256") for request in stub.requests] == [RIGHT] * 2
        signed = [request.headers["Authorization"].split(", ")[1] for request in stub.requests]
        assert signed[0] == signed[1]

    @pytest.mark.parametrize("by", ["environment", "file"])
    def test_they_are_left_out_where_boto3_is_told_so(
        self, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path, by: str
    ) -> None:
        if by == "environment":
            monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        else:
            (tmp_path / "config").write_text("[default]\nrequest_checksum_calculation = when_required\n")
            monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        stub.answer = Server()

        S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint)).write(KEY, DATA)

        (request,) = stub.requests
        assert not any("checksum" in name.lower() for name in request.headers)

    def test_a_server_that_refuses_them_is_sent_none_from_then_on(self, stub: Stub) -> None:
        server = Server()
        server.refused_header = "x-amz-checksum-sha256"

        backend = write_ten(stub, server)

        assert backend.confirmed == {"etag": 10}
        with_checksum = [r for r in stub.requests if "x-amz-checksum-sha256" in r.headers]
        assert len(with_checksum) == 1
        assert len(stub.requests) == 11

    @pytest.mark.parametrize("code", ["InvalidArgument", "NotImplemented", "SignatureDoesNotMatch"])
    def test_an_upload_is_begun_without_them_where_the_server_rejects_them(
        self, stub: Stub, code: str
    ) -> None:
        def answer(request: Request) -> Answer:
            if any("checksum" in name.lower() for name in request.headers):
                return error(400, code)
            if request.operation == "POST uploads":
                return Answer(200, b"<R><UploadId>u</UploadId></R>")
            if request.operation == "POST uploadId":
                return Answer(200, b"<R><ETag>e</ETag></R>")
            return Answer(200, headers={"ETag": hashlib.md5(request.body, usedforsecurity=False).hexdigest()})

        stub.answer = answer
        data = noise(MIN_PART_BYTES + 9)
        backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
        for _ in range(2):
            with backend.upload(KEY, len(data)) as upload:
                upload.write(data)
                upload.commit()
        backend.write(KEY, DATA)

        with_checksum = [r for r in stub.requests if any("checksum" in name.lower() for name in r.headers)]
        assert {request.operation for request in with_checksum} == {"POST uploads", "PUT"}
        assert backend.confirmed == {"etag": 3}

    def test_an_accepted_upload_does_not_stop_an_object_from_being_sent_without_them(
        self, stub: Stub
    ) -> None:
        def answer(request: Request) -> Answer:
            if request.operation == "POST uploads":
                return Answer(200, b"<R><UploadId>u</UploadId></R>")
            if request.operation == "POST uploadId":
                return Answer(200, b"<R><ETag>e</ETag></R>")
            if "x-amz-checksum-sha256" in request.headers:
                return error(400, "InvalidArgument")
            return Answer(200, headers={"ETag": hashlib.md5(request.body, usedforsecurity=False).hexdigest()})

        stub.answer = answer
        data = noise(MIN_PART_BYTES + 9)
        backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
        with backend.upload(KEY, len(data)) as upload:
            upload.write(data)
            upload.commit()
        backend.write(KEY, DATA)

        assert backend.confirmed == {"etag": 2}

    def test_the_doctor_writes_its_probe_without_them_where_the_server_rejects_them(self, stub: Stub) -> None:
        server = Server()
        server.refused_header = "x-amz-checksum-sha256"
        # Its answer to the beginning of an upload has no id: that is a finding, and nothing else.
        stub.answer = lambda request: Answer(200, b"<R/>") if request.method == "POST" else server(request)
        bucket = Bucket("bucket", "prefix", endpoint=stub.endpoint)

        probe = Probe(bucket, ".objects/", keeps_versions=False, conditions=False)
        found = list(probe.run(write_object=True))

        errors = [one.check for one in found if one.level is Level.ERROR]
        assert "s3.multipart" in errors
        assert "store.write" not in errors
        assert not bucket.features.checksums

    def test_parts_and_their_completion_carry_them_where_the_server_knows_them(self, stub: Stub) -> None:
        def answer(request: Request) -> Answer:
            if request.operation == "POST uploads":
                return Answer(200, b"<R><UploadId>u</UploadId></R>", {"x-amz-checksum-algorithm": "SHA256"})
            if request.operation == "POST uploadId":
                return Answer(200, b"<R><ETag>e</ETag></R>")
            return Answer(200)

        stub.answer = answer
        data = noise(MIN_PART_BYTES + 9)
        backend = S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))
        with backend.upload(KEY, len(data)) as upload:
            upload.write(data)
            upload.commit()

        begun, *parts, end = stub.requests
        assert begun.headers["x-amz-checksum-algorithm"] == "SHA256"
        sums = {
            request.query["partNumber"]: base64.b64encode(hashlib.sha256(request.body).digest()).decode()
            for request in parts
        }
        assert {r.query["partNumber"]: r.headers["x-amz-checksum-sha256"] for r in parts} == sums
        for text in sums.values():
            assert f"<ChecksumSHA256>{text}</ChecksumSHA256>".encode() in end.body
