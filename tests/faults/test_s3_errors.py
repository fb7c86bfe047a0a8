"""
What the S3 backend makes of every kind of failure.

A conformance suite cannot stage these: refusals, throttling, answers that
break off or contradict themselves, servers that are not there.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from botocore import exceptions as boto

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3 import backend as s3
from snapferry.stores.backends.s3 import bucket as s3_bucket
from snapferry.stores.backends.s3 import errors
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients as s3_clients
from snapferry.stores.backends.s3.direct.response import MAX_ANSWER_BYTES
from snapferry.stores.backends.s3.objects import confirm
from snapferry.stores.backends.s3.sizes import EXPECT_BYTES
from snapferry.stores.errors import (
    AccessDenied,
    ClockWrong,
    InvalidStoreURL,
    KeyMissing,
    ObjectMissing,
    StoreError,
    StoreFault,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from tests.faults.stub_s3 import Answer, Request, Stub, error, page, serving
from tests.opening import open_backend
from tests.servers import SECRET_KEY, forget_clients, free_port

pytestmark = pytest.mark.usefixtures("s3_environment")

MIB = 1024 * 1024
KEY = object_key(digest(b"an object"))

Call = Callable[[S3Backend], object]


def _open(backend: S3Backend) -> bytes:
    with backend.open(KEY) as reader:
        return reader.read(100)


def _upload(backend: S3Backend) -> None:
    with backend.upload(KEY, 0) as upload:
        upload.write(b"x" * (20 * MIB))
        upload.commit()


CALLS: dict[str, Call] = {
    "size": lambda backend: backend.size(KEY),
    "sizes": lambda backend: backend.sizes([KEY, KEY]),
    "open": _open,
    "write": lambda backend: backend.write(KEY, b"x"),
    "upload": _upload,
    "keys": lambda backend: list(backend.keys(".objects/")),
    "delete": lambda backend: backend.delete(KEY),
    "check": lambda backend: backend.check(for_writing=False),
}


@pytest.fixture(scope="module")
def shared_clients() -> Iterator[tuple[dict, dict]]:
    """The clients of this module: patient ones, and those that ask once. Making one takes longer than most tests."""
    clients: tuple[dict, dict] = {}, {}
    yield clients
    for client in (*clients[0].values(), *clients[1].values()):
        client.close()


@pytest.fixture(autouse=True)
def _use_shared_clients(monkeypatch: pytest.MonkeyPatch, shared_clients: tuple[dict, dict]) -> None:
    monkeypatch.setattr(s3_clients, "_clients", shared_clients[0])
    # They would remember how much all tests together have sent.
    monkeypatch.setattr(confirm, "DETECT_AFTER_BYTES", 2**40)
    # No other credentials will come.
    monkeypatch.setattr(s3_bucket, "RENEWAL_WAIT_S", dict.fromkeys(s3_bucket.RENEWAL_WAIT_S, 0.0))


@pytest.fixture
def stub(shared_stub: Stub) -> Stub:
    return shared_stub


@pytest.fixture
def backend(stub: Stub, once: None) -> S3Backend:
    """A backend on the stub, whose client asks only once."""
    return S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint))


@pytest.fixture
def patient(stub: Stub) -> S3Backend:
    """A backend on the stub that tries again as in earnest. Another region means another client."""
    return S3Backend(Bucket("bucket", "prefix", endpoint=stub.endpoint, region="patient-1"))


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch, shared_clients: tuple[dict, dict]) -> None:
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    # Some tests have clients of their own.
    if s3_clients._clients is shared_clients[0]:
        monkeypatch.setattr(s3_clients, "_clients", shared_clients[1])


def dated(answer: Answer, at: float) -> Answer:
    """Return *answer* as a server gives it whose clock says *at*."""
    return replace(answer, headers={**answer.headers, "Date": formatdate(at, usegmt=True)})


def raised(backend: S3Backend, call: Call) -> StoreError:
    """Return what *call* raises: a StoreError with a cause, the store's label, and no secret in it."""
    with pytest.raises(StoreError) as caught:
        call(backend)
    shown = [caught.value, caught.value.__cause__]
    assert not any(SECRET_KEY in str(one) or SECRET_KEY in repr(one) for one in shown)
    assert caught.value.store == backend.label
    return caught.value


ANSWERS = [
    (404, "NoSuchKey", KeyMissing),
    (404, "NotFound", KeyMissing),
    (404, "", KeyMissing),
    (404, "NoSuchBucket", StoreNotFound),
    (404, "SomethingElseIsNotThere", StoreFault),
    (403, "", AccessDenied),
    (403, "AccessDenied", AccessDenied),
    (403, "AllAccessDisabled", AccessDenied),
    (403, "InvalidAccessKeyId", AccessDenied),
    (403, "SignatureDoesNotMatch", AccessDenied),
    (403, "RequestTimeTooSkewed", ClockWrong),
    (403, "RequestExpired", ClockWrong),
    (401, "Unauthorized", AccessDenied),
    (400, "ExpiredToken", AccessDenied),
    (400, "InvalidToken", AccessDenied),
    (400, "TokenRefreshRequired", AccessDenied),
    (400, "AuthorizationHeaderMalformed", AccessDenied),
    (403, "InvalidObjectState", StoreFault),
    (503, "SlowDown", StoreUnavailable),
    (503, "ServiceUnavailable", StoreUnavailable),
    (503, "", StoreUnavailable),
    (500, "InternalError", StoreUnavailable),
    (500, "", StoreUnavailable),
    (502, "", StoreUnavailable),
    (504, "", StoreUnavailable),
    (429, "TooManyRequests", StoreUnavailable),
    (429, "", StoreUnavailable),
    (408, "", StoreUnavailable),
    (400, "RequestTimeout", StoreUnavailable),
    (400, "BadDigest", StoreUnavailable),
    (400, "IncompleteBody", StoreUnavailable),
    (400, "XAmzContentSHA256Mismatch", StoreUnavailable),
    (409, "OperationAborted", StoreUnavailable),
    (507, "InsufficientStorage", StoreFull),
    (403, "QuotaExceeded", StoreFull),
    (501, "NotImplemented", StoreFault),
    (400, "", StoreFault),
    (400, "InvalidRequest", StoreFault),
    (405, "MethodNotAllowed", StoreFault),
    (412, "PreconditionFailed", StoreFault),
    (301, "PermanentRedirect", StoreFault),
    (301, "", StoreFault),
    (418, "ATeapot", StoreFault),
]


@pytest.mark.parametrize(("status", "code", "expected"), ANSWERS, ids=str)
def test_every_answer_has_its_error(
    backend: S3Backend, stub: Stub, status: int, code: str, expected: type[StoreError]
) -> None:
    stub.answer = lambda _: error(status, code)

    found = raised(backend, _open)

    assert type(found) is expected
    # A bucket that is missing is not the fault of the key.
    assert found.subject == ("" if expected is StoreNotFound else KEY)
    assert str(status) in found.detail
    assert code in found.detail
    # A write cannot be told that its key is missing: that would blame the wrong store.
    instead = StoreFault if expected is KeyMissing else expected
    assert type(raised(backend, CALLS["write"])) is instead
    assert type(raised(backend, CALLS["keys"])) is instead


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "RequestTimeTooSkewed", ""])
@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(7200, r"7,2\d\d s ahead of the server's"), (-7200, r"7,[012]\d\d s behind the server's")],
)
def test_a_refusal_for_a_wrong_clock_says_by_how_much(
    backend: S3Backend, stub: Stub, code: str, ahead_s: int, said: str
) -> None:
    """Not every server has a code for it, and an answer to a HEAD has none."""
    stub.answer = lambda _: dated(error(403, code), time.time() - ahead_s)

    found = raised(backend, _open)

    assert type(found) is ClockWrong
    # A date has whole seconds, and the answer took some time.
    assert re.search(said, found.detail)
    assert "s3:GetObject" not in found.detail


@pytest.mark.parametrize("ahead_s", [0, 600, -600])
def test_a_clock_that_is_right_enough_is_not_blamed(backend: S3Backend, stub: Stub, ahead_s: int) -> None:
    stub.answer = lambda _: dated(error(403, "AccessDenied"), time.time() - ahead_s)

    assert type(raised(backend, _open)) is AccessDenied


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_a_server_without_a_clock_is_believed(backend: S3Backend, stub: Stub, date: str) -> None:
    stub.answer = lambda _: replace(error(403, "AccessDenied"), headers={"Date": date})

    assert type(raised(backend, _open)) is AccessDenied


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("status", [400, 401, 403, 405, 409, 500, 503])
def test_an_answer_that_is_not_success_is_an_error_for_every_call(
    backend: S3Backend, stub: Stub, name: str, status: int
) -> None:
    """Above all a refusal is never "absent", nor a success of a delete."""
    stub.answer = lambda _: error(status, "")

    found = raised(backend, CALLS[name])

    assert not isinstance(found, KeyMissing | StoreNotFound)
    assert isinstance(found, AccessDenied) == (status in {401, 403})
    assert found.transient == (status in {500, 503})


def test_deleting_what_is_not_there_is_fine_but_not_without_a_bucket(backend: S3Backend, stub: Stub) -> None:
    stub.answer = lambda _: error(404, "NoSuchKey")
    backend.delete(KEY)
    assert stub.operations() == ["DELETE"]

    stub.answer = lambda _: error(404, "NoSuchBucket")
    assert type(raised(backend, CALLS["delete"])) is StoreNotFound


def test_a_faulty_answer_is_asked_for_again_within_the_call(patient: S3Backend, stub: Stub) -> None:
    stub.answer = lambda _: error(500, "InternalError") if len(stub.requests) < 3 else Answer()

    patient.write(KEY, b"x")

    assert stub.operations() == ["PUT"] * 3


def test_there_are_five_attempts_in_all(patient: S3Backend, stub: Stub) -> None:
    stub.answer = lambda _: error(500, "InternalError")

    assert raised(patient, CALLS["write"]).transient
    assert stub.operations() == ["PUT"] * 5


def test_a_refusal_is_not_asked_for_again(patient: S3Backend, stub: Stub) -> None:
    stub.answer = lambda _: error(403, "AccessDenied")

    raised(patient, CALLS["write"])

    assert stub.operations() == ["PUT"]


class TestHead:
    """Answers to a HEAD have no body, so they do not say what was not found, or why not."""

    def test_a_404_is_absent_where_the_bucket_is_there_and_that_is_asked_once(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda request: Answer(200) if request.path == "/bucket" else error(404, "")

        assert backend.size(KEY) is None
        assert backend.size(KEY) is None
        assert [request.path for request in stub.requests].count("/bucket") == 1

    @pytest.mark.parametrize(("status", "expected"), [(404, StoreNotFound), (503, StoreUnavailable)])
    def test_a_404_is_not_absent_where_the_bucket_is_not_seen(
        self, backend: S3Backend, stub: Stub, status: int, expected: type[StoreError]
    ) -> None:
        stub.answer = lambda request: error(status if request.path == "/bucket" else 404, "")

        assert type(raised(backend, CALLS["size"])) is expected
        assert type(raised(backend, CALLS["size"])) is expected

    def test_a_404_is_absent_where_asking_for_the_bucket_is_not_allowed(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda request: error(403 if request.path == "/bucket" else 404, "")

        assert backend.size(KEY) is None
        assert len(stub.requests) == 2

    def test_an_answer_without_a_length_is_not_absent(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = lambda _: Answer(no_length=True)

        assert type(raised(backend, CALLS["size"])) is StoreUnavailable


class TestMissingBucket:
    def test_the_endpoint_is_named_where_the_url_names_none(self) -> None:
        bucket = Bucket("gone", region="eu-west-1")
        found = bucket.no_bucket(
            StoreNotFound(bucket.label, "key", "GetObject returned 404 NoSuchBucket: no")
        )

        assert str(found).startswith(
            "s3://gone: there is no bucket gone at https://s3.eu-west-1.amazonaws.com;"
        )
        assert str(found).endswith("(GetObject returned 404 NoSuchBucket)")


class TestCheck:
    def test_a_missing_bucket_is_not_found(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = lambda _: error(404, "")

        assert type(raised(backend, CALLS["check"])) is StoreNotFound

    @pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
    @pytest.mark.parametrize("status", [400, 403])
    def test_the_reason_of_a_refusal_is_asked_for(
        self, backend: S3Backend, stub: Stub, status: int, code: str
    ) -> None:
        stub.answer = lambda request: error(status, "" if request.method == "HEAD" else code)

        found = raised(backend, CALLS["check"])

        assert type(found) is AccessDenied
        assert code in found.detail

    def test_whoever_may_list_the_prefix_but_not_see_the_bucket_is_let_in(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda request: error(403, "") if request.method == "HEAD" else page([])

        backend.check(for_writing=True)

        assert stub.requests[-1].query["prefix"] == "prefix/"

    def test_another_region_is_named_as_the_reason(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = lambda request: error(301, "" if request.method == "HEAD" else "PermanentRedirect")

        found = raised(backend, CALLS["check"])

        assert type(found) is StoreFault
        assert "region=" in found.detail

    @pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
    def test_an_endpoint_that_refuses_or_has_no_address_is_unavailable_before_any_timeout(
        self, monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        monkeypatch.setattr(s3, "CHECK_TIMEOUT_S", 3600)
        backend = S3Backend(Bucket("bucket", endpoint=f"http://{host}:{free_port()}"))

        assert TIMED_OUT not in _unavailable(backend)

    def test_an_endpoint_that_swallows_packets_is_unavailable_when_connecting_took_too_long(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A listener whose queue is full drops what arrives, as a firewall does."""
        # 10 s are promised for all of it.
        assert s3_clients.CONNECT_TIMEOUT_S < s3.CHECK_TIMEOUT_S < 10
        monkeypatch.setattr(s3, "CHECK_TIMEOUT_S", 3600)
        monkeypatch.setattr(s3_clients, "CONNECT_TIMEOUT_S", 0.2)
        with ExitStack() as sockets:
            listener = sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(3):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            backend = S3Backend(Bucket("bucket", endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}"))

            assert TIMED_OUT not in _unavailable(backend)

    def test_an_endpoint_that_accepts_and_says_nothing_is_unavailable_in_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3, "CHECK_TIMEOUT_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            backend = S3Backend(Bucket("bucket", endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}"))

            assert f"{TIMED_OUT} 0.2 s" in _unavailable(backend)


# What a check says that ended because all of its time was over.
TIMED_OUT = "did not answer within"


def _unavailable(backend: S3Backend) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        backend.check(for_writing=False)
    assert caught.value.store == backend.label
    return caught.value.detail


@pytest.mark.usefixtures("fresh_s3_clients")
class TestCredentials:
    def test_none_at_all_are_a_refusal_that_says_so(
        self, monkeypatch: pytest.MonkeyPatch, backend: S3Backend, stub: Stub
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        for call in (CALLS["check"], CALLS["open"], CALLS["size"]):
            found = raised(backend, call)
            assert type(found) is AccessDenied
            assert "credentials" in found.detail
        assert stub.requests == []

    def test_an_unknown_profile_is_a_refusal_that_names_it(self, stub: Stub) -> None:
        found = raised(S3Backend(Bucket("bucket", endpoint=stub.endpoint, profile="nobody")), CALLS["check"])

        assert type(found) is AccessDenied
        assert "nobody" in found.detail

    def test_a_credential_process_that_fails_is_not_quoted(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stub: Stub
    ) -> None:
        config = tmp_path / "config"
        config.write_text('[profile helper]\ncredential_process = sh -c "echo printed-secret >&2; exit 1"\n')
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

        found = raised(S3Backend(Bucket("bucket", endpoint=stub.endpoint, profile="helper")), CALLS["check"])

        assert type(found) is AccessDenied
        assert "printed-secret" not in str(found)
        assert "printed-secret" in str(found.__cause__)

    @pytest.mark.parametrize(
        "name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"], ids=str.lower
    )
    @pytest.mark.parametrize("odd", ["\r", "\n", "\rX", "\n X", "\x7f", "\udcff"], ids=ascii)
    def test_keys_that_no_header_can_carry_are_refused_and_not_quoted(
        self, monkeypatch: pytest.MonkeyPatch, backend: S3Backend, stub: Stub, name: str, odd: str
    ) -> None:
        """The HTTP client quotes the header that it refuses: the session token, or a signature that is valid."""
        monkeypatch.setenv(name, f"IQoJb3JpZ2lu{odd}")

        for call in ("check", "open", "write", "keys"):
            found = raised(backend, CALLS[call])
            assert type(found) is AccessDenied
            assert "IQoJb3JpZ2lu" not in str(found)
            assert "Signature" not in str(found)
        assert stub.requests == []

    def test_each_side_has_its_own_profile_region_and_endpoint(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stub: Stub
    ) -> None:
        credentials = tmp_path / "credentials"
        credentials.write_text(
            "".join(f"[{n}]\naws_access_key_id = KEY{n}\naws_secret_access_key = s\n" for n in ("one", "two"))
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        stub.answer = lambda _: page([])
        with serving() as other:
            other.answer = stub.answer
            for place, name, region in ((stub, "one", "eu-west-3"), (other, "two", "sa-east-1")):
                url = f"s3://bucket/p?endpoint_url={place.endpoint}&profile={name}&region={region}"
                assert list(open_backend(parse_url(url)).keys(".objects/")) == []
                (request,) = place.requests
                assert request.path == "/bucket"
                assert f"Credential=KEY{name}/" in request.headers["Authorization"]
                assert f"/{region}/s3/" in request.headers["Authorization"]

    def test_an_endpoint_without_a_region_gets_the_usual_one(
        self, monkeypatch: pytest.MonkeyPatch, backend: S3Backend, stub: Stub
    ) -> None:
        monkeypatch.delenv("AWS_REGION")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        stub.answer = lambda _: page([])

        list(backend.keys(".objects/"))

        assert "/us-east-1/s3/" in stub.requests[0].headers["Authorization"]

    def test_a_bucket_or_an_endpoint_that_makes_no_url_is_the_urls_fault(self, stub: Stub) -> None:
        assert (
            type(raised(S3Backend(Bucket("not a bucket", endpoint=stub.endpoint)), CALLS["open"]))
            is InvalidStoreURL
        )
        assert (
            type(raised(S3Backend(Bucket("bucket", endpoint="http://no host")), CALLS["open"]))
            is InvalidStoreURL
        )


def _small_escapes(text: str) -> str:
    return quote(text, safe="").replace("%2F", "%2f").replace("%2B", "%2b")


@pytest.mark.usefixtures("fresh_s3_clients")
@pytest.mark.parametrize("lead", [0, 290])
@pytest.mark.parametrize(
    "form", [str, partial(quote, safe=""), _small_escapes], ids=["plain", "url", "small"]
)
def test_keys_that_the_server_says_again_are_in_no_error(
    monkeypatch: pytest.MonkeyPatch, backend: S3Backend, stub: Stub, lead: int, form: Callable[[str], str]
) -> None:
    """Also where the text is cut in the middle of a key."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token/of+a-session" * 10)
    sent = ("x-amz-security-token", "authorization")
    stub.answer = lambda r: error(
        400,
        "InvalidRequest",
        "x" * lead + " ".join(form(v) for k, v in r.headers.items() if k.lower() in sent),
    )

    for name in ("open", "keys", "write"):
        said = str(raised(backend, CALLS[name]))
        assert "token/of" not in said, name
        assert "of%2b" not in said.lower(), name
        assert os.environ["AWS_ACCESS_KEY_ID"] not in said, name


@pytest.mark.usefixtures("fresh_s3_clients")
def test_a_redirect_to_the_region_of_the_bucket_is_followed(backend: S3Backend, stub: Stub) -> None:
    elsewhere = error(301, "PermanentRedirect")
    elsewhere.headers["x-amz-bucket-region"] = "eu-west-3"
    stub.answer = lambda r: page([]) if "/eu-west-3/s3/" in r.headers["Authorization"] else elsewhere

    backend.check(for_writing=False)

    assert list(backend.keys(".objects/")) == []


@pytest.mark.usefixtures("fresh_s3_clients")
def test_a_process_has_one_client_per_settings_and_a_forked_child_its_own(
    monkeypatch: pytest.MonkeyPatch, stub: Stub
) -> None:
    one, same, other = (
        S3Backend(Bucket(b, endpoint=stub.endpoint, region=r))
        for b, r in (("a", "x"), ("b", "x"), ("a", "y"))
    )
    parents = one.bucket.client.boto

    assert same.bucket.client.boto is parents
    assert other.bucket.client.boto is not parents
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert one.bucket.client.boto is not parents
    assert one.bucket.client.boto is same.bucket.client.boto


class TestListing:
    def test_pages_without_keys_are_passed_through(self, backend: S3Backend, stub: Stub) -> None:
        """As where a page holds nothing but common prefixes or what was deleted meanwhile."""
        pages = [page([], token="a"), page([], token="b"), page(["prefix/.objects/k"], token="c"), page([])]
        stub.answer = lambda _: pages[len(stub.requests) - 1]

        assert list(backend.keys(".objects/")) == [(".objects/k", 1, 1714979289.0)]
        assert [request.query.get("continuation-token") for request in stub.requests] == [None, "a", "b", "c"]

    @pytest.mark.parametrize(
        "again",
        [page([], token="same"), page([], truncated=True), page(["prefix/.objects/k"], token="t")],
        ids=["the same token", "no token", "the same page"],
    )
    def test_a_listing_that_does_not_get_on_is_an_error_instead_of_a_loop(
        self, backend: S3Backend, stub: Stub, again: Answer
    ) -> None:
        stub.answer = lambda _: again

        assert type(raised_by_listing(backend)) is StoreFault
        assert len(stub.requests) <= 2

    def test_keys_out_of_order_are_an_error(self, backend: S3Backend, stub: Stub) -> None:
        """Whoever asks which keys are absent would be told too many."""
        stub.answer = lambda _: page(["prefix/.objects/b", "prefix/.objects/a"])

        assert type(raised_by_listing(backend)) is StoreFault

    @pytest.mark.parametrize(
        "body", [b"", b"<ListBucketResult/>", page(["prefix/.objects/k"]).body[:-30], b"<html>"]
    )
    def test_an_answer_that_breaks_off_is_not_an_empty_store(
        self, backend: S3Backend, stub: Stub, body: bytes
    ) -> None:
        stub.answer = lambda _: Answer(200, body)

        assert type(raised_by_listing(backend)) is StoreUnavailable

    def test_an_error_on_the_second_page_is_not_the_end(self, backend: S3Backend, stub: Stub) -> None:
        pages = [page(["prefix/.objects/k"], token="a"), error(503, "SlowDown")]
        stub.answer = lambda _: pages[len(stub.requests) - 1]
        seen: list[str] = []

        with pytest.raises(StoreUnavailable):
            seen.extend(listed.key for listed in backend.keys(".objects/"))
        assert seen == [".objects/k"]


def raised_by_listing(backend: S3Backend) -> StoreError:
    with pytest.raises(StoreError) as caught:
        list(backend.keys(".objects/"))
    return caught.value


class TestReading:
    BODY = bytes(range(256)) * 4096

    @pytest.mark.parametrize("cut", [True, False], ids=["reset", "closed"])
    @pytest.mark.parametrize("came", [0, 1, 1000, MIB - 1])
    @pytest.mark.parametrize("chunk", [1000, MIB, 2 * MIB])
    def test_a_body_that_stops_short_is_never_a_normal_end(
        self, backend: S3Backend, stub: Stub, cut: bool, came: int, chunk: int
    ) -> None:
        stub.answer = lambda _: Answer(200, self.BODY[:came], length=len(self.BODY), cut=cut)
        got = b""

        with pytest.raises(StoreUnavailable) as caught, backend.open(KEY) as reader:
            while data := reader.read(chunk):
                assert len(data) == chunk, "only the end may be short"
                got += data
        assert self.BODY.startswith(got)
        assert len(got) <= came
        assert caught.value.store == backend.label

    def test_a_body_that_stops_short_stays_an_error(self, backend: S3Backend, stub: Stub) -> None:
        # Long enough to be read as it is needed.
        length = 2 * MAX_ANSWER_BYTES
        stub.answer = lambda _: Answer(200, b"half", length=length)

        with backend.open(KEY) as reader:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    reader.read(length)

    def test_a_store_takes_a_cut_for_unavailable_and_not_for_corrupt_or_missing(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda _: Answer(200, b"an obj", length=len(b"an object"))
        store = SnapshotStore(backend)

        with pytest.raises(StoreUnavailable):
            store.get_object(digest(b"an object"))
        stub.answer = lambda _: error(404, "NoSuchKey")
        with pytest.raises(ObjectMissing):
            store.get_object(digest(b"an object"))

    def test_a_body_that_stalls_is_unavailable(
        self, monkeypatch: pytest.MonkeyPatch, once: None, stub: Stub
    ) -> None:
        monkeypatch.setattr(s3_clients, "READ_TIMEOUT_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            backend = S3Backend(Bucket("bucket", endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}"))
            with pytest.raises(StoreUnavailable), ExitStack() as stack:
                _answer_partly_when_asked(listener, stack)
                stack.enter_context(backend.open(KEY)).read(100)

    def test_an_abandoned_body_gives_its_connection_back(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = lambda _: Answer(200, self.BODY)

        for _ in range(5):
            with backend.open(KEY) as reader:
                assert reader.read(10) == self.BODY[:10]
                connection = reader._body._connection  # type: ignore[attr-defined]
                assert connection.fileno() > 0
            assert connection.fileno() == -1


def _answer_partly_when_asked(listener: socket.socket, stack: ExitStack) -> None:
    """Accept one client from another thread, send it half a body, and keep the connection open."""
    import threading

    def serve() -> None:
        client, _ = listener.accept()
        stack.callback(client.close)
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    thread = threading.Thread(target=serve)
    thread.start()
    stack.callback(thread.join)


class TestWriting:
    def test_a_small_object_is_one_request_with_its_checksum_and_without_a_wait(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        """Waiting for "100 Continue" would cost a round trip for each object."""
        backend.write(KEY, b"data")
        with backend.upload(KEY, 4) as upload:
            upload.write(b"da")
            upload.write(b"ta")
            upload.commit()

        assert stub.operations() == ["PUT", "PUT"]
        for request in stub.requests:
            assert request.path == f"/bucket/prefix/{KEY}"
            assert request.body == b"data"
            assert request.headers["Content-Length"] == "4"
            assert request.headers["X-Amz-Content-SHA256"] == (
                "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
            )
            assert "Expect" not in request.headers
            # Servers that do not know boto3's own checksums refuse them; this one is a header like any other.
            assert [
                name for name in request.headers if "checksum" in name.lower() or "trailer" in name.lower()
            ] == ["x-amz-checksum-sha256"]

    def test_a_large_object_waits_for_leave_to_be_sent(self, backend: S3Backend, stub: Stub) -> None:
        backend.write(KEY, b"x" * (EXPECT_BYTES + 1))

        assert stub.requests[0].headers["Expect"] == "100-continue"


class TestMultipart:
    DONE = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"

    def _good(self, request: Request) -> Answer:
        if request.operation == "POST uploads":
            body = b"<InitiateMultipartUploadResult><UploadId>id-1</UploadId></InitiateMultipartUploadResult>"
            return Answer(200, body)
        if request.operation == "POST uploadId":
            return Answer(200, self.DONE)
        return Answer(204 if request.method == "DELETE" else 200)

    def test_parts_are_equal_and_complete_in_order(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = self._good
        data = bytes(range(256)) * (20 * MIB // 256)

        with backend.upload(KEY, len(data)) as upload:
            for start in range(0, len(data), 3 * MIB):
                upload.write(data[start : start + 3 * MIB])
            upload.commit()

        parts = {int(r.query["partNumber"]): r.body for r in stub.requests if r.method == "PUT"}
        assert [len(parts[number]) // MIB for number in (1, 2, 3)] == [8, 8, 4]
        assert b"".join(parts[number] for number in (1, 2, 3)) == data
        assert sorted(stub.operations()) == sorted(
            ["POST uploads", *["PUT uploadId partNumber"] * 3, "POST uploadId"]
        )
        numbers = [stub.requests[-1].body.index(b"<PartNumber>%d<" % number) for number in (1, 2, 3)]
        assert numbers == sorted(numbers)

    @pytest.mark.parametrize(("parts", "puts"), [(1, [8]), (2, [8, 8]), (3, [8, 8, 8])])
    def test_a_stream_that_ends_with_a_part_has_no_empty_part_behind_it(
        self, backend: S3Backend, stub: Stub, parts: int, puts: list[int]
    ) -> None:
        stub.answer = self._good

        with backend.upload(KEY, 0) as upload:
            for _ in range(parts):
                upload.write(b"x" * (8 * MIB))
            upload.commit()

        assert [len(r.body) // MIB for r in stub.requests if r.method == "PUT"] == puts
        assert ("POST uploads" in stub.operations()) == (parts > 1)

    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (200, error(200, "InternalError").body, StoreUnavailable),
            (200, b"  \n" + error(200, "InternalError").body, StoreUnavailable),
            (200, error(200, "AccessDenied").body, AccessDenied),
            (200, b"", StoreUnavailable),
            (200, b"   ", StoreUnavailable),
            (200, DONE[:-10], StoreUnavailable),
            (200, b"<CompleteMultipartUploadResult/>", StoreUnavailable),
            (404, error(404, "NoSuchUpload").body, StoreUnavailable),
            (400, error(400, "InvalidPart").body, StoreFault),
        ],
    )
    def test_only_a_whole_answer_completes_an_upload(
        self, backend: S3Backend, stub: Stub, status: int, body: bytes, expected: type[StoreError]
    ) -> None:
        """S3 says 200 before it knows, keeps the connection awake with spaces, and then tells."""
        stub.answer = lambda r: Answer(status, body) if r.operation == "POST uploadId" else self._good(r)

        assert type(raised(backend, CALLS["upload"])) is expected
        assert stub.operations()[-1] == "DELETE uploadId"

    @pytest.mark.parametrize("operation", ["POST uploads", "PUT uploadId partNumber", "POST uploadId"])
    @pytest.mark.parametrize(
        "answer", [error(403, "AccessDenied"), error(503, "SlowDown"), Answer(200, no_etag=True)]
    )
    def test_a_step_that_fails_ends_the_upload_and_removes_it(
        self, backend: S3Backend, stub: Stub, operation: str, answer: Answer
    ) -> None:
        stub.answer = lambda r: answer if r.operation == operation else self._good(r)

        raised(backend, CALLS["upload"])

        removed = stub.operations().count("DELETE uploadId")
        assert removed == (0 if operation == "POST uploads" else 1)
        assert stub.operations().count("POST uploadId") == (1 if operation == "POST uploadId" else 0)

    @pytest.mark.parametrize(
        ("answer", "warnings"),
        [(error(500, ""), 1), (error(403, "AccessDenied"), 1), (error(404, "NoSuchUpload"), 0)],
    )
    def test_an_abort_that_fails_says_so_in_the_log_only(
        self, backend: S3Backend, stub: Stub, caplog: pytest.LogCaptureFixture, answer: Answer, warnings: int
    ) -> None:
        """Of an upload that the server does not know, nothing is left."""
        stub.answer = lambda r: answer if r.method == "DELETE" else self._good(r)

        with caplog.at_level(logging.WARNING), backend.upload(KEY, 0) as upload:
            upload.write(b"x" * (9 * MIB))
            upload.abort()
            upload.abort()

        assert stub.operations().count("DELETE uploadId") == 1
        assert [record.name for record in caplog.records] == [
            "snapferry.stores.backends.s3.objects.multipart"
        ] * warnings
        assert caplog.text.count(backend.label) == warnings

    def test_an_upload_is_removed_only_after_its_parts_have_ended(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        """A part that arrives later would stay, and be paid for, without anyone knowing."""
        ended: list[str] = []

        def answer(request: Request) -> Answer:
            found = self._good(request)
            ended.append(request.operation)
            return found

        stub.answer = answer
        with backend.upload(KEY, 0) as upload:
            upload.write(b"x" * (20 * MIB))

        assert ended == ["POST uploads", *["PUT uploadId partNumber"] * 2, "DELETE uploadId"]


# Classes of botocore that say nothing of the store: broken settings, wrong use of boto3, other services.
# A class that is new in botocore belongs here or into the table in snapferry.stores.backends.s3.errors.
PLAIN_FAULTS = """
    BotoCoreError DataNotFoundError UnknownServiceError UnknownRegionError ApiVersionNotFoundError
    InvalidIMDSEndpointError InvalidIMDSEndpointModeError UnknownSignatureVersionError ServiceNotInRegionError
    BaseEndpointResolverError NoRegionError EndpointVariantError UnknownEndpointError UnknownFIPSEndpointError
    ConfigParseError ConfigNotFound MissingParametersError ValidationError UnknownKeyError RangeError
    UnknownParameterError AliasConflictParameterError UnknownServiceStyle PaginationError OperationNotPageableError
    UnseekableStreamError WaiterError InvalidExpressionError WaiterConfigError UnknownClientMethodError
    UnsupportedSignatureVersionError InvalidS3AddressingStyleError UnsupportedS3ArnError UnsupportedS3ControlArnError
    InvalidHostLabelError UnsupportedOutpostResourceError UnsupportedS3ConfigurationError
    UnsupportedS3AccesspointConfigurationError InvalidEndpointDiscoveryConfigurationError
    UnsupportedS3ControlConfigurationError InvalidRetryConfigurationError InvalidMaxRetryAttemptsError
    InvalidRetryModeError InvalidS3UsEast1RegionalEndpointConfigError InvalidSTSRegionalEndpointsConfigError
    StubResponseError StubAssertionError UnStubbedResponseError InvalidConfigError InfiniteLoopConfigError
    MD5UnavailableError MissingDependencyException UndefinedModelAttributeError MissingServiceIdError
    InvalidProxiesConfigError InvalidDefaultsMode AwsChunkedWrapperError InvalidEndpointConfigurationError
    EndpointProviderError EndpointResolutionError UnknownEndpointResolutionBuiltInName InvalidChecksumConfigError
    UnsupportedServiceProtocolsError
""".split()  # noqa: SIM905 - a list of seventy lines says no more

BOTO_CLASSES = [
    value
    for value in vars(boto).values()
    if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == boto.__name__
    if not issubclass(value, Warning)
]


@pytest.mark.parametrize("kind", BOTO_CLASSES, ids=lambda kind: kind.__name__)
def test_every_exception_of_botocore_was_thought_of(kind: type[Exception]) -> None:
    if issubclass(kind, boto.ClientError):
        return
    backend = S3Backend(Bucket("bucket"))
    error = kind.__new__(kind)

    with pytest.raises(StoreError) as caught, backend.bucket.errors(KEY):
        raise error

    assert caught.value.__cause__ is error
    assert (type(caught.value) is StoreFault) == (kind.__name__ in PLAIN_FAULTS), "put the class into a table"


def test_the_tables_name_nothing_that_does_not_exist() -> None:
    known = {kind.__name__ for kind in BOTO_CLASSES}
    assert len(known) > 80
    assert set(PLAIN_FAULTS) <= known
    others = {"ResponseParserError", "HTTPError", "HTTPException", "OSError", "AnswerTooLong"}
    others |= {"ValueError", "ArithmeticError", "LookupError", "UnsendableCredentials"}
    assert set(errors._BY_CLASS) - others <= known
    assert not set(errors._BY_CLASS) & set(PLAIN_FAULTS) - {
        "BotoCoreError",
        "UndefinedModelAttributeError",
    }


def test_a_certificate_that_is_not_trusted_is_not_worth_another_try() -> None:
    backend = S3Backend(Bucket("bucket"))
    for reason, transient in (("[SSL: CERTIFICATE_VERIFY_FAILED] ...", False), ("EOF occurred", True)):
        with pytest.raises(StoreError) as caught, backend.bucket.errors(KEY):
            raise boto.SSLError(endpoint_url="https://example.org", error=OSError(reason))
        assert caught.value.transient is transient


@pytest.mark.parametrize("bundle", ["missing", "directory", "empty", "damaged"])
def test_a_file_of_certificates_that_cannot_be_used_is_named_and_not_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "damaged").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / bundle))
    with serving() as stub:
        # The file is read before anything is sent, so the server need not use TLS.
        endpoint = stub.endpoint.replace("http:", "https:")
        try:
            with pytest.raises(StoreFault) as caught:
                list(S3Backend(Bucket("bucket", endpoint=endpoint)).keys(".objects/"))
        finally:
            forget_clients(endpoint)
        assert "AWS_CA_BUNDLE" in caught.value.detail
        assert stub.requests == []


def test_a_manifest_that_the_store_does_not_let_go_is_an_error_that_names_it(
    backend: S3Backend, stub: Stub
) -> None:
    stub.answer = lambda _: error(403, "AccessDenied", "Access Denied")

    with pytest.raises(AccessDenied) as caught:
        SnapshotStore(backend).delete_manifest(digest(b"a manifest"))

    assert str(caught.value) == (
        f"{backend.label}: {digest(b'a manifest')}: the manifest may not be deleted, and stays:"
        " DeleteObject returned 403 AccessDenied: Access Denied; the request needs the permission s3:DeleteObject,"
        " or s3:DeleteObjectVersion for a version"
    )
    assert stub.operations() == ["DELETE"]


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        ("AccessDenied", "Access Denied", "needs the permission s3:ListBucket"),
        ("AccessDenied", "", "needs the permission s3:ListBucket"),
        ("", "", "the credentials may be wrong, or lack s3:ListBucket"),
        ("AccessDenied", "User: arn:… is not authorized to perform: kms:Decrypt on resource: arn:…", ""),
        ("InvalidAccessKeyId", "no such key", ""),
        ("SignatureDoesNotMatch", "", ""),
    ],
)
def test_a_refusal_names_the_permission_that_is_missing_unless_the_server_does(
    backend: S3Backend, stub: Stub, code: str, message: str, told: str
) -> None:
    stub.answer = lambda _: error(403, code, message)

    found = raised_by_listing(backend)

    assert type(found) is AccessDenied
    assert ("s3:ListBucket" in found.detail) == bool(told)
    assert told in found.detail
    assert message in found.detail


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("InvalidAccessKeyId", "check its id, and endpoint_url"),
        ("SignatureDoesNotMatch", "the secret key may be wrong"),
    ],
)
def test_a_refusal_for_its_keys_says_which_of_them_to_check(
    backend: S3Backend, stub: Stub, code: str, told: str
) -> None:
    stub.answer = lambda _: error(403, code, "")

    assert told in raised_by_listing(backend).detail


def test_a_server_without_tls_is_told_apart_from_one_that_is_away() -> None:
    backend = S3Backend(Bucket("bucket"))
    for reason, told in (("[SSL: WRONG_VERSION_NUMBER] wrong version number", True), ("EOF occurred", False)):
        with pytest.raises(StoreUnavailable) as caught, backend.bucket.errors(KEY):
            raise boto.SSLError(endpoint_url="https://example.org", error=OSError(reason))
        assert ("write http:// in endpoint_url" in caught.value.detail) == told


def test_without_keys_the_error_names_the_variables_that_give_them() -> None:
    backend = S3Backend(Bucket("bucket"))
    with pytest.raises(AccessDenied) as caught, backend.bucket.errors(KEY):
        raise boto.NoCredentialsError
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in caught.value.detail


def test_a_listing_that_does_not_say_when_a_key_was_written_is_cut_short(
    backend: S3Backend, stub: Stub
) -> None:
    stub.answer = lambda _: Answer(
        200, re.sub(b"<LastModified>[^<]*</LastModified>", b"", page(["prefix/k"]).body)
    )

    assert type(raised_by_listing(backend)) is StoreUnavailable


def test_every_attempt_is_counted_as_sent_whatever_becomes_of_it(patient: S3Backend, stub: Stub) -> None:
    stub.answer = lambda _: error(503, "SlowDown") if len(stub.requests) < 3 else Answer()

    patient.write(KEY, b"x")

    assert len(stub.requests) == 3
    assert patient.requests_sent == {"PutObject": 3}


def test_a_question_is_counted_for_the_backend_that_asked_it_though_the_client_is_shared(stub: Stub) -> None:
    one, two = (S3Backend(Bucket("bucket", prefix, endpoint=stub.endpoint)) for prefix in ("one", "two"))
    stub.answer = lambda _: Answer(200, length=1)

    def ask(backend: S3Backend, times: int) -> None:
        for _ in range(times):
            backend.size(KEY)

    threads = [threading.Thread(target=ask, args=pair) for pair in ((one, 20), (two, 30), (one, 10))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert one.bucket.client.boto is two.bucket.client.boto
    assert (one.requests_sent, two.requests_sent) == ({"HeadObject": 30}, {"HeadObject": 30})
    one.requests_sent.clear()
    assert one.requests_sent == {"HeadObject": 30}
