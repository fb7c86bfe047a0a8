"""What a URL may set for a store, that requests by both ways carry it, and credentials that change meanwhile."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3 import backend as s3
from snapferry.stores.backends.s3 import bucket as s3_bucket
from snapferry.stores.backends.s3.backend import S3Backend, open_s3
from snapferry.stores.backends.s3.client import credentials as s3_credentials
from snapferry.stores.backends.s3.client import session as s3_session
from snapferry.stores.backends.s3.deadline import run_within
from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES
from snapferry.stores.errors import AccessDenied, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.urls import parse_url
from tests.conformance.contract import noise
from tests.faults.stub_s3 import Answer, Request, Stub, error, page

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

DATA = b"an object"
KEY = object_key(digest(DATA))


@pytest.fixture
def stub(stub: Stub) -> Stub:
    stub.answer = good
    return stub


def good(request: Request) -> Answer:
    operation = request.operation
    if "list-type" in request.query:
        return page(["prefix/.objects/k"])
    if operation == "POST uploads":
        return Answer(200, b"<R><UploadId>u</UploadId></R>")
    if operation == "POST uploadId":
        return Answer(200, b"<R><ETag>e</ETag></R>")
    return Answer(200, DATA if request.method == "GET" else b"")


def opened(stub: Stub, query: str) -> S3Backend:
    backend = open_s3(parse_url(f"s3://bucket/prefix?endpoint_url={stub.endpoint}&{query}"))
    assert isinstance(backend, S3Backend)
    return backend


def use(backend: S3Backend) -> None:
    """Do all that a copy does, in small and in parts."""
    backend.write(KEY, DATA)
    with backend.open(KEY) as reader:
        assert reader.read(100) == DATA
    backend.size(KEY)
    list(backend.keys(".objects/"))
    with backend.upload(KEY, MIN_PART_BYTES + 1) as upload:
        upload.write(noise(MIN_PART_BYTES + 1))
        upload.commit()
    backend.delete(KEY)


WRITES = {"PUT", "POST uploads"}


@pytest.mark.parametrize(
    ("query", "headers", "always"),
    [
        ("storage_class=STANDARD_IA", {"x-amz-storage-class": "STANDARD_IA"}, False),
        ("sse=AES256", {"x-amz-server-side-encryption": "AES256"}, False),
        (
            "sse=aws:kms&sse_kms_key_id=arn:aws:kms:eu-west-1:123456789012:key/ab-12",
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": (
                    "arn:aws:kms:eu-west-1:123456789012:key/ab-12"
                ),
            },
            False,
        ),
        ("acl=bucket-owner-full-control", {"x-amz-acl": "bucket-owner-full-control"}, False),
        ("tags=team%3Dba+ckup,stage%3Dü", {"x-amz-tagging": "team=ba%20ckup&stage=%C3%BC"}, False),
        ("request_payer=requester", {"x-amz-request-payer": "requester"}, True),
    ],
)
def test_settings_go_along_with_the_requests_that_need_them_by_both_ways(
    stub: Stub, by_boto: list[str], query: str, headers: dict[str, str], always: bool
) -> None:
    backend = opened(stub, query)

    use(backend)

    # All that is done for every object still goes past boto3.
    assert not {"put_object", "get_object", "head_object", "list_objects_v2"} & set(by_boto)
    for request in stub.requests:
        found = {name.lower(): value for name, value in request.headers.items()}
        signed = found["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        for name, value in headers.items():
            if always or request.operation in WRITES:
                assert found[name] == value
                assert name in signed
            else:
                assert name not in found


def test_all_settings_together_are_signed_as_boto3_signs_them(stub: Stub, by_boto: list[str]) -> None:
    use(
        opened(
            stub,
            "storage_class=STANDARD_IA&sse=aws:kms&sse_kms_key_id=k&acl=bucket-owner-full-control&tags=a%3Db"
            "&request_payer=requester",
        )
    )

    assert "put_object" not in by_boto


def test_unsigned_requests_carry_no_credentials(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    backend = opened(stub, "unsigned=true")

    backend.check(for_writing=False)
    with backend.open(KEY) as reader:
        assert reader.read(100) == DATA
    list(backend.keys(".objects/"))

    assert not any("authorization" in map(str.lower, request.headers) for request in stub.requests)


@pytest.mark.parametrize("by", ["url", "file"])
def test_buckets_are_addressed_by_host_where_that_is_wanted(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_boto: list[str], by: str
) -> None:
    """Also where the endpoint is named in the URL."""
    port = stub.endpoint.rpartition(":")[2]
    resolve = socket.getaddrinfo

    def to_loopback(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith("s3.example") else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", to_loopback)
    query = "&addressing_style=virtual" if by == "url" else ""
    if by == "file":
        (tmp_path / "config").write_text("[default]\ns3 =\n    addressing_style = virtual\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    backend = open_s3(parse_url(f"s3://bucket/prefix?endpoint_url=http://s3.example:{port}{query}"))
    assert isinstance(backend, S3Backend)

    use(backend)

    assert {request.headers["Host"] for request in stub.requests} == {f"bucket.s3.example:{port}"}
    assert {request.path for request in stub.requests} <= {f"/prefix/{KEY}", "/"}
    assert "put_object" not in by_boto


def test_a_server_without_ranges_is_asked_for_none_again(stub: Stub) -> None:
    def answer(request: Request) -> Answer:
        if "Range" in request.headers:
            return error(501, "NotImplemented")
        return good(request)

    stub.answer = answer
    backend = opened(stub, "")
    for _ in range(3):
        with backend.open(KEY, size_hint=100 * 1024 * 1024) as reader:
            assert reader.read(100) == DATA

    assert sum("Range" in request.headers for request in stub.requests) == 1
    assert len(stub.requests) == 4


class Keys:
    """A credentials file, and a server that takes one of its keys alone."""

    def __init__(self, folder: Path, stub: Stub) -> None:
        self.path = folder / "credentials"
        self.valid = "OLD"
        self.code = "ExpiredToken"
        self.seen: list[str] = []
        self.write("OLD")
        stub.answer = self.answer

    def write(self, key: str) -> None:
        self.path.write_text(self.text(key))

    @staticmethod
    def text(key: str) -> str:
        return (
            f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\naws_session_token = t{key}\n"
        )

    def answer(self, request: Request) -> Answer:
        used = request.headers["Authorization"].split("Credential=")[1].split("/")[0]
        self.seen.append(used)
        if used != self.valid:
            return error(
                400 if self.code != "InvalidAccessKeyId" else 403,
                "" if request.method == "HEAD" else self.code,
            )
        return good(request)


@pytest.fixture
def keys(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    keys = Keys(tmp_path, stub)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys.path))
    return keys


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidAccessKeyId"]
)
def test_rotated_credentials_are_taken_up_within_a_process(stub: Stub, keys: Keys, code: str) -> None:
    keys.code = code
    backend = opened(stub, "")
    use(backend)
    keys.write("NEW")
    keys.valid = "NEW"

    use(backend)
    # All of the first time, and the first request of the second.
    assert keys.seen.count("OLD") == 9 + 1
    keys.seen.clear()
    use(backend)

    assert set(keys.seen) == {"NEW"}


def test_a_head_whose_refusal_gives_no_reason_takes_up_new_credentials_too(stub: Stub, keys: Keys) -> None:
    backend = opened(stub, "")
    assert backend.size(KEY) == 0
    keys.write("NEW")
    keys.valid = "NEW"

    assert backend.size(KEY) == 0
    # After a refusal without a reason boto3 looks for the bucket's region.
    assert keys.seen in (["OLD", "OLD", "NEW"], ["OLD", "OLD", "OLD", "NEW"])


def test_many_refusals_at_once_are_one_look_up(
    stub: Stub, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(stub, "")
    backend.write(KEY, DATA)
    looked: list[float] = []
    look_up = s3_credentials.RenewableCredentials._look_up

    def noted(self: s3_credentials.RenewableCredentials, refused: Any) -> bool:
        looked.append(time.monotonic())
        return look_up(self, refused)

    monkeypatch.setattr(s3_credentials.RenewableCredentials, "_look_up", noted)
    keys.write("NEW")
    keys.valid = "NEW"
    raised: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                backend.write(KEY, DATA)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert raised == []
    assert len(looked) == 1


@pytest.mark.parametrize(
    "half",
    [
        "[default]\naws_access_key_id = NEW\n",
        "[defau",
        "",
        "[default]\naws_access_key_id = N\naws_secret_access_key = s\n",
    ],
)
def test_a_file_that_is_half_written_is_waited_for(
    stub: Stub, keys: Keys, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    backend = opened(stub, "")
    backend.write(KEY, DATA)
    keys.path.write_text(half)
    keys.valid = "NEW"
    pauses: list[float] = []

    def rest(seconds: float) -> None:
        pauses.append(seconds)
        keys.write("NEW")

    monkeypatch.setattr(time, "sleep", rest)
    keys.code = "ExpiredToken"

    backend.write(KEY, DATA)

    assert keys.seen[-1] == "NEW"


def test_credentials_that_stay_refused_are_told_and_not_looked_up_for_each_request(
    stub: Stub, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "RENEWAL_WAIT_S", dict.fromkeys(s3_bucket.RENEWAL_WAIT_S, 0.0))
    loads: list[str] = []
    credentials = s3_session.credentials_of

    def counted(profile: str | None) -> s3_credentials.RenewableCredentials:
        made = credentials(profile)
        load = made._load

        def loaded() -> Any:
            loads.append("x")
            return load()

        made._load = loaded
        return made

    monkeypatch.setattr(s3_session, "credentials_of", counted)
    keys.valid = "NOBODY"
    backend = opened(stub, "")

    for _ in range(20):
        with pytest.raises(AccessDenied, match="ExpiredToken"):
            backend.write(KEY, DATA)

    assert len(stub.requests) == 20
    assert len(loads) == 2


def credential_process(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    program = folder / "program"
    answer = {"Version": 1, "AccessKeyId": "SLOW", "SecretAccessKey": "s"}
    program.write_text(f"#!/bin/sh\nsleep {seconds}\necho '{json.dumps(answer)}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "config").write_text(f"[profile slow]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


def test_a_slow_provider_of_credentials_is_not_a_silent_store(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def noted(timeout_s: float, *arguments: Any) -> None:
        waited.append(timeout_s)
        run_within(timeout_s, *arguments)

    monkeypatch.setattr(s3, "run_within", noted)
    credential_process(tmp_path, monkeypatch, 0.1)

    opened(stub, "profile=slow").check(for_writing=False)

    assert waited == [s3.CREDENTIALS_TIMEOUT_S, s3.CHECK_TIMEOUT_S]
    assert "Credential=SLOW/" in stub.requests[0].headers["Authorization"]


def test_a_provider_of_credentials_that_never_ends_is_named(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "CREDENTIALS_TIMEOUT_S", 0.2)
    credential_process(tmp_path, monkeypatch, 3)

    with pytest.raises(StoreUnavailable, match="credential_process"):
        opened(stub, "profile=slow").check(for_writing=False)

    assert stub.requests == []
