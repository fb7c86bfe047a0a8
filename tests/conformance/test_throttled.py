"""Stores at a pace: what the wrapper is around, and what keeps to it by itself, are no different for it."""

from __future__ import annotations

from tests.conformance.contract import BackendContract, StoreContract


class TestThrottledMemory(BackendContract):
    kind = "throttled memory"


class TestThrottledFile(BackendContract):
    kind = "throttled file"


class TestThrottledS3(BackendContract):
    kind = "throttled rclone"
    replaces_at_once = False


class TestStoreInThrottledFile(StoreContract):
    kind = "throttled file"
