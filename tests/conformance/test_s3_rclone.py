"""The S3 backend on rclone's server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import StoreNotFound
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from tests.conformance.contract import (
    BackendContract,
    MissingStoreContract,
    SplitStoreContract,
    StoreContract,
    key,
    noise,
    read,
)
from tests.opening import open_backend, open_store
from tests.servers import S3Server


class TestS3BackendOnRclone(BackendContract):
    kind = "rclone"
    # Measured: with :memory: a reader finds the object short, on a directory it may find none for a moment.
    replaces_at_once = False


class TestMissingBucketOnRclone(MissingStoreContract):
    @pytest.fixture
    def absent(self, rclone_memory_s3: S3Server) -> Backend:
        return open_backend(parse_url(rclone_memory_s3.url("bucket-that-is-not-there", "prefix")))

    def test_it_is_no_place_to_write_to_and_holds_no_sizes(self, absent: Backend) -> None:
        """A HEAD of a key answers the same whether the key is absent or the bucket."""
        with pytest.raises(StoreNotFound):
            absent.check(for_writing=True)
        with pytest.raises(StoreNotFound):
            absent.size(key(1))
        with pytest.raises(StoreNotFound):
            absent.write(key(1), b"x")
        with pytest.raises(StoreNotFound), absent.upload(key(1), 9 * 1024 * 1024) as begun:
            begun.write(noise(9 * 1024 * 1024))
        with pytest.raises(StoreNotFound):
            SnapshotStore(absent).objects_needed([digest(b"1"), digest(b"2")])


class TestStoreOnRclone(StoreContract):
    kind = "rclone"

    def test_a_listing_full_of_strangers_is_given_up_for_single_questions(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        """More than a page of keys that nobody asked for lies between the wanted ones."""
        ordered = sorted((digest(b"%d" % number), b"%d" % number) for number in range(1_100))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda pair: store.put_object(*pair), ordered))
        first, last, absent = ordered[0][0], ordered[-1][0], "e" * 64
        assert first < absent < last

        assert store.objects_needed([absent, first, last]) == [absent]
        objects.delete(object_key(last))
        objects.delete(object_key(first))
        assert store.objects_needed([last, absent, first]) == [last, absent, first]


class TestSplitStoreOnRclone(SplitStoreContract):
    kind = manifests_kind = "rclone"


class TestStoreSplitBetweenS3AndDirectory(SplitStoreContract):
    kind = "rclone"
    manifests_kind = "file"


class TestBucketThatIsADirectory:
    """rclone on a directory: what is in the bucket lies open as files."""

    def test_keys_are_laid_out_as_in_a_directory_store(self, rclone_s3: S3Server) -> None:
        bucket = rclone_s3.make_bucket()
        with_prefix, without = (open_store(rclone_s3.url(bucket, prefix)) for prefix in ("a/b", ""))
        for store in (with_prefix, without):
            store.put_object(digest(b"x"), b"x")

        assert rclone_s3.directory is not None
        for root in (rclone_s3.directory / bucket / "a" / "b", rclone_s3.directory / bucket):
            assert (root / object_key(digest(b"x"))).read_bytes() == b"x"
            in_directory = open_store(str(root))
            assert in_directory.get_object(digest(b"x")) == b"x"
            assert in_directory.objects_needed([digest(b"x"), digest(b"y")]) == [digest(b"y")]

    def test_prefixes_in_one_bucket_do_not_see_each_other(self, rclone_s3: S3Server) -> None:
        bucket = rclone_s3.make_bucket()
        one, two = (open_backend(parse_url(rclone_s3.url(bucket, prefix))) for prefix in ("one", "one-more"))
        one.write(key(1), b"1")
        two.write(key(2), b"2")

        assert [k for k, *_ in one.keys(".objects/")] == [key(1)]
        assert [k for k, *_ in two.keys(".objects/")] == [key(2)]
        assert one.size(key(2)) is None
        assert read(two, key(2)) == b"2"


def test_wrong_credentials_are_refused_by_name(
    rclone_memory_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snapferry.stores.backends.s3.client import clients
    from snapferry.stores.errors import AccessDenied

    url = parse_url(rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "prefix"))
    open_backend(url).write(key(1), b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret-key")
    monkeypatch.setattr(clients, "_clients", {})
    backend = open_backend(url)

    try:
        with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
            backend.check(for_writing=False)
        for attempt in (
            lambda: backend.size(key(1)),
            lambda: backend.size(key(2)),
            lambda: read(backend, key(1)),
            lambda: backend.write(key(1), b"y"),
            lambda: backend.delete(key(1)),
            lambda: list(backend.keys(".objects/")),
        ):
            with pytest.raises(AccessDenied) as caught:
                attempt()
            assert "a-wrong-secret-key" not in str(caught.value)
    finally:
        for client in clients._clients.values():
            client.close()
