"""The S3 backend on moto's server, which shares no code with rclone's."""

from __future__ import annotations

import pytest

from snapferry.stores.backend import Backend
from snapferry.stores.urls import parse_url
from tests.conformance.contract import (
    BackendContract,
    MissingStoreContract,
    SplitStoreContract,
    StoreContract,
)
from tests.opening import open_backend
from tests.servers import S3Server


class TestS3BackendOnMoto(BackendContract):
    kind = "moto"
    fails_writers_at_once = True


class TestMissingBucketOnMoto(MissingStoreContract):
    @pytest.fixture
    def absent(self, moto_s3: S3Server) -> Backend:
        return open_backend(parse_url(moto_s3.url("bucket-that-is-not-there")))


class TestStoreOnMoto(StoreContract):
    kind = "moto"


@pytest.mark.slow
class TestStoreSplitBetweenTwoServers(SplitStoreContract):
    kind = "moto"
    manifests_kind = "rclone"
