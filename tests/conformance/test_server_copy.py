"""Copies by the server, at three implementations of S3."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.planning.estimates.objects import ObjectRequests
from snapferry.stores.address import Address, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.s3 import sizes
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.objects.server_side import parts, upload
from snapferry.stores.errors import IntegrityError, ObjectMissing, StoreUnavailable
from snapferry.stores.features import CopiesOnServer
from snapferry.stores.hashing import digest
from snapferry.stores.pools.server_copy import copy_on_server
from snapferry.stores.requests import Requests
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from snapferry.workers.messages import JobSpec, StoreRef
from tests.conformance.contract import MIB, noise, read
from tests.opening import open_backend
from tests.servers import S3Server

PART = 6 * MIB

pytestmark = pytest.mark.usefixtures("s3_environment")


class Pair:
    """Two empty stores of one server."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.buckets = server.make_bucket(), server.make_bucket()
        self.source, self.destination = (
            open_backend(parse_url(server.url(bucket, "p"))) for bucket in self.buckets
        )

    def held(self) -> list[str]:
        return [listed.key for listed in self.destination.keys(".objects/")]


@pytest.fixture(params=["rclone_memory_s3", "moto_s3", pytest.param("ceph_s3", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pair:
    for module in (sizes, upload):
        monkeypatch.setattr(module, "COPIED_WHOLE_BYTES", PART)
    for other in (sizes, parts):
        monkeypatch.setattr(other, "copied_part_bytes", lambda _: PART)
    return Pair(request.getfixturevalue(request.param))


def filed(backend: Backend, data: bytes, *, right: bool = True) -> Address:
    address = digest(data)
    with backend.upload(object_key(address), len(data)) as begun:
        begun.write(data if right else data[:-1] + b"!")
        begun.commit()
    return address


@pytest.mark.parametrize("length", [0, 1, MIB, 2 * PART + 5, 40 * MIB])
@pytest.mark.parametrize("hint_is_right", [True, False])
def test_an_object_of_any_length_is_copied(pair: Pair, length: int, hint_is_right: bool) -> None:
    data = noise(length)
    address = filed(pair.source, data)
    pieces: list[int] = []

    copied = copy_on_server(
        pair.source,
        pair.destination,
        address,
        size_hint=length if hint_is_right else 0,
        on_bytes=pieces.append,
    )

    assert copied == sum(pieces) == length
    assert read(pair.destination, object_key(address)) == data
    assert isinstance(pair.destination, S3Backend)
    assert pair.destination.confirmed == {"server": 1}
    assert pair.server.unfinished_uploads(pair.buckets[1]) == []
    assert pair.held() == [object_key(address)]


@pytest.mark.parametrize("length", [0, PART, 2 * PART + 5])
def test_a_copy_sends_what_an_estimate_predicts(pair: Pair, length: int) -> None:
    source, destination = SnapshotStore(pair.source), SnapshotStore(pair.destination)
    # The first copy sends the probe.
    copy_on_server(pair.source, pair.destination, filed(pair.source, b"first"), size_hint=5)
    address = filed(pair.source, noise(length))
    spec = JobSpec.of(StoreRef(url="s3://a/b"), StoreRef(url="s3://a/c"), [], server_side=True)
    requests = ObjectRequests(spec, source, destination)
    before = source.accounting.sent(), destination.accounting.sent()

    copy_on_server(pair.source, pair.destination, address, size_hint=length)

    sent = source.accounting.sent() - before[0], destination.accounting.sent() - before[1]
    # A server that copies whatever version there is, is asked about the source once more.
    assert sent[0] - Requests(HeadObject=sent[0]["HeadObject"]) == requests.of(length)[0]
    predicted = requests.of(length)[1]
    if sent[1]["CopyObject"] and length > PART:
        # A server that copies no parts.
        assert sent[1]["AbortMultipartUpload"] == 1
    else:
        assert sent[1] - Requests(HeadObject=1) == predicted - Requests(HeadObject=1)
    assert sent[1]["HeadObject"] <= predicted["HeadObject"]
    assert predicted["UploadPartCopy"] == (3 if length > PART else 0)
    # The server may refuse.
    assert not requests.exact


@pytest.mark.parametrize("length", [10, 2 * PART + 5])
def test_a_corrupt_object_leaves_nothing(pair: Pair, length: int) -> None:
    address = filed(pair.source, noise(length), right=False)

    with pytest.raises(IntegrityError) as caught:
        copy_on_server(pair.source, pair.destination, address, size_hint=length)

    assert caught.value.store == pair.source.label
    assert pair.held() == []
    assert pair.server.unfinished_uploads(pair.buckets[1]) == []


@pytest.mark.parametrize("length", [10, 2 * PART + 5])
def test_an_object_that_is_replaced_after_the_reading_is_not_copied(pair: Pair, length: int) -> None:
    data = noise(length)
    address = filed(pair.source, data)
    key = object_key(address)
    assert isinstance(pair.destination, CopiesOnServer)
    copy = pair.destination.server_copy(pair.source, key, length)
    assert copy is not None
    with copy.open() as reader, copy.upload() as begun:
        while chunk := reader.read(MIB):
            begun.write(chunk)
        pair.source.write(key, b"another")
        # A part that was copied before is right.
        with pytest.raises(StoreUnavailable, match="replaced") if length == 10 else _either():
            begun.commit()

    assert [read(pair.destination, key) for key in pair.held()] in ([], [data])
    assert pair.server.unfinished_uploads(pair.buckets[1]) == []


class _either:  # noqa: N801 - used as a context manager in the place of `pytest.raises`
    """Accept that the block raises `StoreUnavailable`, or nothing."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, StoreUnavailable)


def test_an_object_that_the_source_lacks_is_missing_there(pair: Pair) -> None:
    with pytest.raises(ObjectMissing) as caught:
        copy_on_server(pair.source, pair.destination, digest(b"nowhere"))
    assert caught.value.store == pair.source.label
