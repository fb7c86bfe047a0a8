"""Copies by the server: what is read is what becomes visible, whatever server, network and other programs do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3 import sizes
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.objects.server_side import parts, upload
from snapferry.stores.errors import IntegrityError, ObjectMissing, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from snapferry.workers.copying.transfer.interfaces import JobStopped
from snapferry.workers.copying.transfer.server_side import copy_batch_on_server
from snapferry.workers.outcome import BatchOutcome
from tests.conformance.contract import MIB, noise
from tests.faults.copying_server import CopyingServer, copying_server, tag
from tests.faults.stub_s3 import Answer, Request, error
from tests.opening import open_backend
from tests.servers import S3Server

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

SMALL = b"an object"
LARGE = noise(40 * MIB + 7)
PART = 16 * MIB


class Silent:
    """Progress that nobody watches."""

    def begin(self, needed: object) -> None: ...

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None: ...


@pytest.fixture
def server() -> Iterator[CopyingServer]:
    with copying_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let objects of some megabytes be copied in parts."""
    monkeypatch.setattr(sizes, "COPIED_WHOLE_BYTES", PART)
    monkeypatch.setattr(upload, "COPIED_WHOLE_BYTES", PART)
    monkeypatch.setattr(parts, "copied_part_bytes", lambda _: PART)


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 not wait between attempts."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)


def stores(server: CopyingServer, options: str = "") -> tuple[SnapshotStore, SnapshotStore]:
    source, destination = server.url("from/a"), server.url("to/b") + options
    return SnapshotStore(open_backend(parse_url(source))), SnapshotStore(open_backend(parse_url(destination)))


def copy(server: CopyingServer, data: bytes, options: str = "") -> tuple[BatchOutcome, dict[str, int]]:
    """Copy *data*, which the source has; return the outcome and how it was confirmed."""
    source, destination = stores(server, options)
    server.objects.setdefault(at("from/a", data), data)
    outcome = copy_batch_on_server(source, destination, {digest(data): len(data)}, Silent())
    return outcome, outcome.confirmed


def at(place: str, data: bytes) -> str:
    return f"/{place}/{object_key(digest(data))}"


def failing(of: str, answer: Callable[[Request], Answer | None]) -> Callable[[str, Request], Answer | None]:
    """Spoil requests of one operation, but those of probes."""
    return lambda operation, request: (
        answer(request) if operation == of and "probe" not in request.path else None
    )


@pytest.mark.parametrize("enforces", [True, False])
@pytest.mark.parametrize("data", [b"", SMALL, noise(3 * MIB), noise(PART), LARGE])
def test_the_server_copies_what_was_read_and_nothing_is_sent(
    server: CopyingServer, data: bytes, enforces: bool
) -> None:
    server.enforces = enforces

    outcome, confirmed = copy(server, data)

    assert (outcome.copied, outcome.failures, outcome.bytes_copied) == (1, [], len(data))
    assert confirmed == {"server": 1}
    assert server.held("to") == {at("to/b", data): data}
    assert server.asked["PutObject"] == server.asked["UploadPart"] == 0
    assert server.asked["UploadPartCopy"] == (3 if data is LARGE else 0)
    assert server.uploads == {}
    assert not [path for path in server.objects if "probe" in path]


def test_a_server_is_tried_once_and_a_copy_costs_a_reading_and_one_request(server: CopyingServer) -> None:
    source, destination = stores(server)
    objects = [b"%d" % number for number in range(20)]
    server.objects |= {at("from/a", data): data for data in objects}

    outcome = copy_batch_on_server(
        source, destination, {digest(data): len(data) for data in objects}, Silent()
    )

    assert outcome.copied == 20
    assert (server.asked["GetObject"], server.asked["CopyObject"]) == (20, 20)
    assert server.asked["HeadObject"] == 0
    assert isinstance(destination.objects, S3Backend)
    assert destination.objects.requests_sent["CopyObject"] >= 20


def test_an_object_that_was_uploaded_in_parts_has_another_etag_after_its_copy(server: CopyingServer) -> None:
    data = noise(MIB)
    server.objects[at("from/a", data)] = data
    server.etags[at("from/a", data)] = '"0123456789abcdef0123456789abcdef-2"'

    outcome, confirmed = copy(server, data)

    assert (outcome.copied, confirmed) == (1, {"server": 1})
    # Before the copy, whether it is there; after it, its length.
    assert server.asked["HeadObject"] == 2


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_wrong_bytes_at_the_source_never_become_visible(server: CopyingServer, data: bytes) -> None:
    server.objects[at("from/a", data)] = data[:-1] + b"!"
    seen: list[str] = []
    server.before = lambda operation, _: seen.append(operation)

    outcome, _ = copy(server, data)

    assert [failure.error for failure in outcome.failures] == [IntegrityError.__name__]
    assert server.held("to") == {}
    assert server.uploads == {}
    assert "CompleteMultipartUpload" not in seen


@pytest.mark.parametrize("enforces", [True, False])
@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize("other", [b"other bytes", b""])
def test_an_object_that_is_replaced_after_it_was_read_is_not_copied(
    server: CopyingServer, data: bytes, enforces: bool, other: bytes
) -> None:
    server.enforces = enforces
    path = at("from/a", data)

    def replace(operation: str, request: Request) -> None:
        # A large object is looked at once more, before it becomes visible.
        if not enforces and data is LARGE:
            late = operation == "HeadObject" and request.path == path
        else:
            late = operation in {"CopyObject", "UploadPartCopy"} and "probe" not in request.path
        if late:
            server.objects[path] = other

    server.before = replace

    outcome, _ = copy(server, data)

    (failure,) = outcome.failures
    assert (failure.error, failure.transient) == (StoreUnavailable.__name__, True)
    assert server.held("to") == {}
    assert server.uploads == {}


@pytest.mark.parametrize(
    "refusal",
    [
        error(501, "NotImplemented"),
        error(403, "AccessDenied"),
        error(405, "MethodNotAllowed"),
        error(400, "InvalidRequest"),
    ],
)
@pytest.mark.parametrize("of_probe", [True, False])
def test_a_server_that_refuses_to_copy_is_asked_once_and_the_bytes_are_sent(
    server: CopyingServer, refusal: Answer, of_probe: bool
) -> None:
    refused: list[str] = []

    def refuse(operation: str, request: Request) -> Answer | None:
        if operation != "CopyObject" or ("probe" in request.path) != of_probe:
            return None
        refused.append(request.path)
        return refusal

    server.before = refuse

    for number in range(5):
        data = b"%d" % number
        outcome, confirmed = copy(server, data)
        assert (outcome.copied, outcome.failures, confirmed) == (1, [], {"etag": 1, "server": 0})

    assert set(server.held("to")) == {at("to/b", b"%d" % number) for number in range(5)}
    # A refusal that may be about a header is tried again without it.
    assert len(refused) <= 2
    assert server.asked["PutObject"] == 5


def test_a_server_that_takes_a_copy_for_an_empty_object_is_sent_the_bytes(server: CopyingServer) -> None:
    def ignore(operation: str, request: Request) -> Answer | None:
        if operation != "CopyObject":
            return None
        server.objects[request.path] = b""
        return Answer()

    server.before = ignore

    outcome, confirmed = copy(server, SMALL)

    assert (outcome.copied, confirmed) == (1, {"etag": 1, "server": 0})
    assert server.held("to") == {at("to/b", SMALL): SMALL}


def test_a_server_that_copies_no_parts_copies_large_objects_whole(server: CopyingServer) -> None:
    server.before = failing("UploadPartCopy", lambda _: Answer())

    outcome, confirmed = copy(server, LARGE)

    assert (outcome.copied, confirmed) == (1, {"server": 1})
    assert server.held("to") == {at("to/b", LARGE): LARGE}
    assert server.uploads == {}


def test_an_object_that_the_server_can_copy_neither_whole_nor_in_parts_is_sent(
    server: CopyingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "MAX_COPIED_WHOLE_BYTES", PART)
    server.before = failing("UploadPartCopy", lambda _: error(501, "NotImplemented"))

    outcome, confirmed = copy(server, LARGE)

    assert (outcome.copied, outcome.failures) == (1, [])
    assert confirmed["server"] == 0
    assert server.held("to") == {at("to/b", LARGE): LARGE}
    assert server.uploads == {}
    # Smaller ones still are copied by the server.
    assert copy(server, SMALL)[1] == {"server": 1}


LATE_ERROR = error(500, "InternalError").body


@pytest.mark.parametrize(
    ("data", "operation"),
    [(SMALL, "CopyObject"), (LARGE, "UploadPartCopy"), (LARGE, "CompleteMultipartUpload")],
)
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, LATE_ERROR, {"Content-Type": "application/xml"}),
        Answer(200, b"<Copy", {"Content-Type": "application/xml"}),
        Answer(200, b"<CopyObjectResult>", length=1000, cut=True),
        Answer(length=1000, cut=True),
        error(503, "SlowDown"),
    ],
)
def test_an_answer_that_is_an_error_or_ends_early_is_a_failure_and_leaves_nothing(
    server: CopyingServer, data: bytes, operation: str, answer: Answer, fast_retries: None
) -> None:
    server.before = failing(operation, lambda _: answer)

    outcome, _ = copy(server, data)

    (failure,) = outcome.failures
    assert failure.transient
    assert server.held("to") == {}
    assert server.uploads == {}

    server.before = lambda _, __: None
    assert copy(server, data)[0].copied == 1


@pytest.mark.parametrize(("data", "operation"), [(SMALL, "CopyObject"), (LARGE, "UploadPartCopy")])
def test_a_connection_that_is_cut_once_is_tried_again(
    server: CopyingServer, data: bytes, operation: str, fast_retries: None
) -> None:
    cut = [Answer(no_length=True, status=503, cut=True)]
    server.before = failing(operation, lambda _: cut.pop() if cut else None)

    outcome, confirmed = copy(server, data)

    assert (outcome.failures, confirmed) == ([], {"server": 1})
    assert server.held("to") == {at("to/b", data): data}


def test_an_object_that_the_source_lacks_is_missing_there(server: CopyingServer) -> None:
    source, destination = stores(server)

    outcome = copy_batch_on_server(source, destination, {digest(SMALL): 9}, Silent())

    (failure,) = outcome.failures
    assert (failure.error, failure.store) == (ObjectMissing.__name__, source.label)


def test_a_copy_shorter_than_what_was_read_is_deleted(server: CopyingServer) -> None:
    def shorten(request: Request) -> Answer:
        server.objects[request.path] = LARGE[:9]
        return Answer(200, f"<CopyObjectResult><ETag>{tag(b'?')}</ETag></CopyObjectResult>".encode())

    server.before = failing("CopyObject", shorten)

    outcome, _ = copy(server, SMALL + b"!")

    assert [failure.error for failure in outcome.failures] == [IntegrityError.__name__]
    assert server.held("to") == {}


def test_the_settings_of_the_destination_apply_as_to_an_upload(server: CopyingServer) -> None:
    options = "&storage_class=STANDARD_IA&sse=AES256&acl=bucket-owner-full-control&tags=team=a"

    copy(server, SMALL, options)

    (headers,) = server.copies
    wanted = {
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-server-side-encryption": "AES256",
        "x-amz-acl": "bucket-owner-full-control",
        "x-amz-tagging": "team=a",
        "x-amz-tagging-directive": "REPLACE",
        "x-amz-metadata-directive": "REPLACE",
    }
    assert {name: headers.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("options", ["", "&storage_class=STANDARD_IA&tags=team=a"])
def test_copies_take_the_direct_path(server: CopyingServer, by_boto: list[str], options: str) -> None:
    for number in range(3):
        assert copy(server, b"%d" % number, options)[1] == {"server": 1}

    # The probe with an ETag that no object has is continued by boto3, because its answer is an error.
    assert by_boto.count("copy_object") == 1
    assert len(server.copies) == 3
    assert {headers["x-amz-metadata-directive"] for headers in server.copies} == {"REPLACE"}


@pytest.mark.parametrize("name", ["rclone_memory_s3", "moto_s3"])
def test_real_servers_take_the_signature_of_a_copy(
    request: pytest.FixtureRequest, name: str, by_boto: list[str]
) -> None:
    real: S3Server = request.getfixturevalue(name)
    places = [real.url(real.make_bucket(), "a prefix/é") for _ in range(2)]
    source, destination = (SnapshotStore(open_backend(parse_url(place))) for place in places)
    source.put_object(digest(SMALL), SMALL)

    outcome = copy_batch_on_server(source, destination, {digest(SMALL): len(SMALL)}, Silent())

    assert outcome.confirmed == {"server": 1}
    assert destination.get_object(digest(SMALL)) == SMALL
    assert "copy_object" not in by_boto


def test_a_server_that_rejects_the_header_about_tags_is_not_sent_it(server: CopyingServer) -> None:
    server.before = lambda _, request: (
        error(501, "NotImplemented") if "x-amz-tagging-directive" in request.headers else None
    )

    assert copy(server, SMALL)[1] == {"server": 1}
    assert "x-amz-tagging-directive" not in server.copies[0]


def test_a_stop_while_parts_are_copied_leaves_nothing(server: CopyingServer) -> None:
    source, destination = stores(server)
    server.objects[at("from/a", LARGE)] = LARGE

    class Stops(Silent):
        def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
            raise JobStopped

    with pytest.raises(JobStopped):
        copy_batch_on_server(source, destination, {digest(LARGE): len(LARGE)}, Stops())

    assert server.held("to") == {}
    assert server.uploads == {}


def test_stores_of_two_servers_are_copied_by_sending(server: CopyingServer) -> None:
    with copying_server() as other:
        source = SnapshotStore(open_backend(parse_url(server.url("from/a"))))
        destination = SnapshotStore(open_backend(parse_url(other.url("to/b"))))
        server.objects[at("from/a", SMALL)] = SMALL

        outcome = copy_batch_on_server(source, destination, {digest(SMALL): 9}, Silent())

        assert outcome.confirmed == {"etag": 1, "server": 0}
        assert other.held("to") == {at("to/b", SMALL): SMALL}
        assert other.asked["CopyObject"] == 0


def test_no_error_of_a_probe_is_taken_for_a_refusal(server: CopyingServer, fast_retries: None) -> None:
    server.before = lambda _, request: error(503, "SlowDown") if "probe" in request.path else None

    outcome, _ = copy(server, SMALL)
    assert [failure.transient for failure in outcome.failures] == [True]

    server.before = lambda _, __: None
    assert copy(server, SMALL)[1] == {"server": 1}
