"""Where a contract can be tried: one empty place per kind of store."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from snapferry.stores.address import MANIFESTS, OBJECTS, address_of
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.urls import parse_url
from snapferry.stores.wrappers.throttled import throttled
from tests.conformance.contract import MakePlace, Place
from tests.opening import open_backend
from tests.servers import S3Server


class Unlimited:
    """A rate limiter without limits."""

    def acquire_requests(self, count: int, /) -> None:
        assert count > 0

    def acquire_bytes(self, count: int, /) -> None:
        assert count >= 0

    def refund_bytes(self, count: int, /) -> None:
        assert count > 0


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> MakePlace:
    """Make a new place of a kind, as often as is wanted."""
    numbers = itertools.count()

    def make(kind: str) -> Place:
        if kind.startswith("throttled "):
            inner = make(kind.removeprefix("throttled "))
            return Place(throttled(inner.backend, Unlimited()), inner.leftovers)
        if kind == "memory":
            return _memory(f"{kind}-{next(numbers)}")
        if kind == "file":
            return _file(tmp_path / f"store-{next(numbers)}")
        return _s3(
            request.getfixturevalue(
                {"rclone": "rclone_memory_s3", "moto": "moto_s3", "ceph": "ceph_s3"}[kind]
            )
        )

    return make


def _memory(name: str) -> Place:
    backend = MemoryBackend(name)

    def leftovers() -> list[str]:
        found = list(backend._files)
        return [key for key in found if not (address_of(key, OBJECTS) or address_of(key, MANIFESTS))]

    return Place(backend, leftovers)


def _file(root: Path) -> Place:
    root.mkdir()
    return Place(
        DirectoryBackend(str(root)),
        lambda: [str(path) for path in root.rglob("*") if path.name.startswith((".tmp-", ".parts-"))],
    )


def _s3(server: S3Server) -> Place:
    bucket = server.make_bucket()
    backend = open_backend(parse_url(server.url(bucket, "some/prefix")))
    return Place(backend, lambda: server.unfinished_uploads(bucket))
