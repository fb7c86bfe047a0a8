"""The memory backend: the fake that other tests trust."""

from __future__ import annotations

from tests.conformance.contract import BackendContract, SplitStoreContract, StoreContract


class TestMemoryBackend(BackendContract):
    kind = "memory"


class TestStoreInMemory(StoreContract):
    kind = "memory"


class TestSplitStoreInMemory(SplitStoreContract):
    kind = manifests_kind = "memory"
