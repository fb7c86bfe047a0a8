"""The S3 backend on Ceph's RADOS gateway, a third implementation. Slow to start, and not from PyPI."""

from __future__ import annotations

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES
from snapferry.stores.diagnosis.probe import probe_destination
from snapferry.stores.hashing import digest
from snapferry.stores.urls import parse_url
from tests.conformance.contract import (
    BackendContract,
    MissingStoreContract,
    SplitStoreContract,
    StoreContract,
    noise,
)
from tests.counting import counting_proxy
from tests.opening import open_backend, open_store
from tests.servers import S3Server

pytestmark = pytest.mark.slow

DATA = b"an object"
KEY = object_key(digest(DATA))


class TestS3BackendOnCeph(BackendContract):
    kind = "ceph"


class TestMissingBucketOnCeph(MissingStoreContract):
    @pytest.fixture
    def absent(self, ceph_s3: S3Server) -> Backend:
        return open_backend(parse_url(ceph_s3.url("bucket-that-is-not-there")))


class TestStoreOnCeph(StoreContract):
    kind = "ceph"


class TestStoreSplitBetweenCephAndRclone(SplitStoreContract):
    kind = "ceph"
    manifests_kind = "rclone"


def test_it_refuses_what_was_altered_on_the_way(ceph_s3: S3Server) -> None:
    bucket = ceph_s3.make_bucket()

    def alter(operation: str, path: str, body: bytes) -> bytes:
        return bytes([body[0] ^ 1]) + body[1:] if operation in {"PutObject", "UploadPart"} else body

    with counting_proxy(ceph_s3, alter=alter) as (proxy, _):
        backend = open_backend(parse_url(proxy.url(bucket, "p")))
        with pytest.raises(Exception, match=r"XAmzContentSHA256Mismatch|other bytes"):
            backend.write(KEY, DATA)

    assert "Contents" not in ceph_s3.client.list_objects_v2(Bucket=bucket)


def test_it_confirms_by_its_etags_and_by_the_digest(ceph_s3: S3Server) -> None:
    from snapferry.stores.backends.s3.features import Confirmation
    from snapferry.stores.backends.s3.objects.detect import detect

    backend = open_backend(parse_url(ceph_s3.url(ceph_s3.make_bucket(), "p")))
    assert isinstance(backend, S3Backend)
    backend.write(KEY, DATA)
    with backend.upload(KEY, MIN_PART_BYTES + 1) as upload:
        upload.write(noise(MIN_PART_BYTES + 1))
        upload.commit()
    assert backend.confirmed == {"etag": 2}

    features = backend.bucket.features
    assert detect(backend.bucket, features, KEY) is Confirmation.DIGEST
    # What is known about objects is not assumed of the parts of uploads.
    assert detect(backend.bucket, features.parts, KEY) is Confirmation.DIGEST
    with backend.upload(KEY, MIN_PART_BYTES + 1) as upload:
        upload.write(noise(MIN_PART_BYTES + 1))
        upload.commit()
    assert backend.confirmed == {"etag": 2, "digest": 1}


@pytest.mark.parametrize(
    "query",
    [
        "storage_class=STANDARD",
        "acl=bucket-owner-full-control",
        "tags=team%3Dbackup",
        "request_payer=requester",
    ],
)
def test_it_takes_the_settings_of_a_store(ceph_s3: S3Server, query: str) -> None:
    bucket = ceph_s3.make_bucket()
    backend = open_backend(parse_url(f"{ceph_s3.url(bucket, 'p')}&{query}"))

    backend.write(KEY, DATA)

    assert backend.size(KEY) == len(DATA)
    if query.startswith("tags"):
        found = ceph_s3.client.get_object_tagging(Bucket=bucket, Key=f"p/{KEY}")
        assert found["TagSet"] == [{"Key": "team", "Value": "backup"}]


def test_a_bucket_with_object_lock_takes_objects(ceph_s3: S3Server) -> None:
    ceph_s3.client.create_bucket(Bucket="locking", ObjectLockEnabledForBucket=True)
    backend = open_backend(parse_url(ceph_s3.url("locking", "p")))

    backend.write(KEY, DATA)

    assert backend.size(KEY) == len(DATA)


def test_the_doctor_finds_nothing_wrong_and_leaves_nothing(ceph_s3: S3Server) -> None:
    bucket = ceph_s3.make_bucket()

    found = {
        finding.check: finding.level.value for finding in probe_destination(open_store(ceph_s3.url(bucket)))
    }

    assert "error" not in found.values()
    assert found["s3.confirm"] == found["s3.start_after"] == "ok"
    assert "Contents" not in ceph_s3.client.list_objects_v2(Bucket=bucket)
