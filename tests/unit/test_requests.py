"""What a store will be sent, what it says that it was sent, and what a server received: three times the same."""

from __future__ import annotations

import pytest

from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.s3.sizes import (
    MAX_OBJECT_BYTES,
    PLANNED_PARTS,
    part_sizes,
    requests_to_download,
    requests_to_upload,
)
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import render
from snapferry.stores.pools.existence import requests_to_ask
from snapferry.stores.requests import Requests
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Published
from tests.counting import counting_proxy
from tests.opening import open_store
from tests.sample import fill
from tests.servers import S3Server

MIB = 1024 * 1024

FILES = {f"./{number}": b"%d" % number for number in range(30)} | {
    "./empty": b"",
    "./large": b"x" * (20 * MIB),
    "./huge": b"y" * (36 * MIB + 1),
}


@pytest.fixture(params=["rclone_memory_s3", "moto_s3"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


def copy(source: SnapshotStore, destination: SnapshotStore, snapshot: str) -> tuple[Requests, Requests]:
    """Copy as a job does; return what was to be expected at the source and at the destination."""
    with source.read_manifest(snapshot) as manifest:
        objects, length = manifest.objects(), manifest.length
    needed, between = destination.survey(objects)
    assert between is not None
    at_source = Requests({"GetObject": 1})
    at_destination = destination.accounting.to_survey(len(objects), between)
    for address in needed:
        read = source.accounting.to_read_object(objects[address])
        written = destination.accounting.to_write_object(objects[address])
        at_source += read
        at_destination += written
        destination.copy_object(source, address, size_hint=objects[address])
    already = snapshot in destination.list_manifests()
    at_destination += Requests({"ListObjectsV2": 1})
    assert destination.publish_all(source, [snapshot]) == {snapshot: Published(written=not already)}
    at_source += Requests({"GetObject": 1 if already else 2})
    at_destination += destination.accounting.to_survey(len(objects), len(objects))
    at_destination += destination.accounting.to_publish(length, already=already)
    return at_source, at_destination


@pytest.mark.parametrize("half", [False, True], ids=["empty", "half full"])
def test_a_copy_sends_what_was_predicted_and_the_server_receives_that(server: S3Server, half: bool) -> None:
    with counting_proxy(server) as (proxy, received):
        bucket = server.make_bucket()
        snapshot = fill(open_store(server.url(bucket, "a")), FILES)
        source, destination = (open_store(proxy.url(bucket, prefix)) for prefix in ("a", "b"))
        if half:
            elsewhere = open_store(server.url(bucket, "b"))
            for data in [*FILES.values()][::2]:
                elsewhere.put_object(digest(data), data)

        for _ in ("copied", "copied already"):
            before = source.accounting.sent(), destination.accounting.sent(), received.copy()
            expected = copy(source, destination, snapshot)
            assert source.accounting.sent() - before[0] == expected[0]
            assert destination.accounting.sent() - before[1] == expected[1]
            assert received - before[2] == expected[0] + expected[1]
        if not half:
            assert (received["UploadPart"], received["CompleteMultipartUpload"]) == (3 + 5, 2)
        assert received == source.accounting.sent() + destination.accounting.sent()


def test_leftovers_of_dead_uploads_cost_a_question_for_each_object_that_is_sent_in_parts(
    server: S3Server,
) -> None:
    with counting_proxy(server) as (proxy, received):
        store = open_store(proxy.url(server.make_bucket(), "p"))

        store.abort_unfinished({digest(b"1"): 8 * MIB + 1, digest(b"2"): 8 * MIB})

        assert store.accounting.sent() == received == {"ListMultipartUploads": 1}


def test_a_single_question_is_one_request_and_the_first_absence_asks_for_the_bucket_too(
    server: S3Server,
) -> None:
    store = open_store(server.url(server.make_bucket(), "p"))
    one, two = digest(b"1"), digest(b"2")

    assert store.objects_needed([one]) == [one]
    assert store.accounting.sent() == store.accounting.to_survey(1, 0) + Requests({"HeadBucket": 1})
    assert store.objects_needed([two]) == [two]
    assert store.accounting.sent() == Requests({"HeadObject": 2, "HeadBucket": 1})


def test_no_single_absence_asks_for_the_bucket_after_a_listing_was_answered(server: S3Server) -> None:
    store = open_store(server.url(server.make_bucket(), "p"))

    assert store.list_manifests() == {}
    assert not store.has_object(digest(b"1"))
    assert store.accounting.sent() == {"ListObjectsV2": 1, "HeadObject": 1}


def test_split_pools_are_counted_together(server: S3Server) -> None:
    bucket = server.make_bucket()
    store = open_store(server.url(bucket, "manifests"), server.url(bucket, "objects"))
    text = render([])

    store.put_object(digest(b"1"), b"1")
    store.put_manifest(digest(text), text)

    asked = store.accounting.to_survey(0, 0)
    assert store.accounting.sent() == Requests({"PutObject": 1}) + asked + store.accounting.to_publish(
        len(text), already=False
    )


def test_directories_and_memory_are_sent_nothing(tmp_path) -> None:
    for backend in (DirectoryBackend(str(tmp_path)), MemoryBackend()):
        store = SnapshotStore(backend)
        fill(store, {"./a": b"a"})

        assert store.accounting.sent() == {}
        assert store.accounting.to_survey(1000, 10**6) == {}
        assert store.accounting.to_read_object(10**12) == {}
        assert store.accounting.to_write_object(10**12) == {}
        assert store.accounting.to_publish(10**9, already=False) == {}


@pytest.mark.parametrize(
    ("wanted", "between", "lists", "heads"),
    [
        (0, 0, 0, 0),
        (1, 5000, 0, 1),
        (2, 0, 1, 0),
        (2, 999, 1, 0),
        (1000, 0, 1, 0),
        (1000, 1500, 2, 0),
        (1000, 20_999, 21, 0),
        (1000, 99_999, 100, 0),
        (1000, 200_000, 1, 995),
        (1000, 10**9, 1, 999),
    ],
)
def test_a_question_costs_pages_or_where_they_are_given_up_the_rest_one_by_one(
    wanted: int, between: int, lists: int, heads: int
) -> None:
    predicted = requests_to_ask(wanted, between)

    assert (predicted["ListObjectsV2"], predicted["HeadObject"]) == (lists, heads)
    assert all(predicted.values())


@pytest.mark.parametrize(
    ("size", "ranges"),
    [(0, 1), (1, 1), (32 * MIB, 1), (32 * MIB + 1, 5), (40 * MIB, 5), (20 * 10**9, 2385)],
)
def test_a_large_object_is_read_in_ranges_and_another_in_one_request(size: int, ranges: int) -> None:
    assert requests_to_download(size) == {"GetObject": ranges}


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        8 * MIB,
        8 * MIB + 1,
        16 * MIB,
        16 * MIB + 1,
        40_000 * MIB,
        40_001 * MIB,
        10**12 + 1,
        MAX_OBJECT_BYTES,
    ],
)
def test_the_parts_predicted_are_the_parts_that_an_upload_is_cut_into(size: int) -> None:
    sizes = part_sizes(size)
    parts, left = 1, size - next(sizes)
    while left > 0:
        parts, left = parts + 1, left - next(sizes)

    assert parts <= PLANNED_PARTS
    expected = {"CreateMultipartUpload": 1, "UploadPart": parts, "CompleteMultipartUpload": 1}
    assert requests_to_upload(size) == (expected if parts > 1 else {"PutObject": 1})
