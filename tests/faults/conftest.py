"""What the tests against S3 stubs share: clients of their own, and the stub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients
from snapferry.stores.backends.s3.direct.paths import Paths

from .stub_s3 import Answer, Stub, serving


@pytest.fixture
def fresh_s3_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make S3 clients anew for each test: what a client learnt about a server does not reach the next test."""
    made: dict = {}
    monkeypatch.setattr(clients, "_clients", made)
    yield
    for client in list(made.values()):
        client.close()


@pytest.fixture
def stub() -> Iterator[Stub]:
    """An S3 stub for one test."""
    with serving() as stub:
        yield stub


@pytest.fixture(scope="module")
def _module_stub() -> Iterator[Stub]:
    with serving() as stub:
        yield stub


@pytest.fixture
def shared_stub(_module_stub: Stub) -> Stub:
    """An S3 stub for all tests of a module, as new: starting one takes longer than many of the tests."""
    _module_stub.requests.clear()
    _module_stub.answer = lambda _: Answer()
    return _module_stub


@pytest.fixture
def by_boto(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that boto3 was called for."""
    called: list[str] = []
    call = Bucket.call

    def noted(self: Bucket, operation: str, **parameters: object) -> object:
        called.append(operation)
        return call(self, operation, **parameters)

    monkeypatch.setattr(Bucket, "call", noted)
    return called


@pytest.fixture(params=["direct", "boto3"])
def sent_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Requests on the direct path, or by boto3 alone."""
    if request.param == "boto3":
        monkeypatch.setattr(Paths, "path_to", lambda *_: None)
    name: str = request.param
    return name
