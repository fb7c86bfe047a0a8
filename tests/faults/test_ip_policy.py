"""Connections go where a policy allows, whatever a name resolves to, and from one moment to the next."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from snapferry.stores.access import STRICT, TRUSTED, AccessPolicy
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.direct.http1 import ConnectionPool
from snapferry.stores.backends.s3.http.errors import CarriedError
from snapferry.stores.backends.s3.http.sockets import connect
from snapferry.stores.errors import NotAllowed, StoreUnavailable
from snapferry.stores.network.endpoint import parse_allowed
from snapferry.stores.opening import open_backend
from snapferry.stores.urls import parse_url

from .stub_s3 import Answer, Stub, page, serving

KEY = "k" * 9
ALLOWS_HTTP = AccessPolicy(endpoints=(parse_allowed("http://*"),))

CALLS: list[Callable[[S3Backend], object]] = [
    lambda backend: backend.check(for_writing=False),
    lambda backend: backend.size(KEY),
    lambda backend: list(backend.keys(".manifests/")),
    lambda backend: backend.write(KEY, b"secret"),
    lambda backend: backend.delete(KEY),
]


@pytest.fixture
def stub(s3_environment: dict[str, str]) -> Iterator[Stub]:
    with serving() as found:
        found.answer = lambda request: page([]) if "list-type" in request.query else Answer(404)
        yield found


def name_server(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let the host x.example resolve to one of *answers* after the other; return the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host != "x.example":
            return real(host, port, *rest, **more)
        asked.append(host)
        return real(answers[min(len(asked), len(answers)) - 1], port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def at(stub: Stub, host: str, access: AccessPolicy) -> Any:
    port = stub.endpoint.rpartition(":")[2]
    return open_backend(parse_url(f"s3://bucket?endpoint_url=http://{host}:{port}"), access=access)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254"])
@pytest.mark.parametrize("access", [TRUSTED, ALLOWS_HTTP])
def test_a_name_of_a_link_local_address_is_asked_for_once_and_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, call: Any, address: str, access: AccessPolicy
) -> None:
    backend = at(stub, "x.example", access)
    asked = name_server(monkeypatch, address)

    with pytest.raises(NotAllowed, match="link-local"):
        call(backend)

    # boto3 does not try again what is not allowed.
    assert len(asked) == 1
    assert stub.requests == []


@pytest.mark.parametrize("call", CALLS[:3])
def test_a_name_that_changes_its_address_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, stub: Stub, call: Any
) -> None:
    backend = at(stub, "x.example", ALLOWS_HTTP)
    name_server(monkeypatch, "127.0.0.1", "169.254.169.254")
    list(backend.keys("a"))
    seen = len(stub.requests)
    backend.bucket.client.boto._endpoint.http_session._manager.clear()
    backend.bucket.client.paths.close()

    with pytest.raises(NotAllowed):
        call(backend)

    assert seen == len(stub.requests) > 0


def test_plain_http_to_a_name_of_this_machine_goes_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, stub: Stub
) -> None:
    port = stub.endpoint.rpartition(":")[2]
    policy = AccessPolicy(endpoints=(parse_allowed(f"http://x.localhost:{port}"),))
    backend = at(stub, "x.localhost", policy)
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: real("192.0.2.1", *rest, **more))

    with pytest.raises(NotAllowed, match="another machine"):
        backend.check(for_writing=False)


def test_of_several_addresses_those_that_are_allowed_are_used(
    monkeypatch: pytest.MonkeyPatch, stub: Stub
) -> None:
    port = int(stub.endpoint.rpartition(":")[2])
    real = socket.getaddrinfo

    def both(host: Any, *rest: Any, **more: Any) -> Any:
        found = [one for each in ("169.254.1.1", "127.0.0.1") for one in real(each, *rest, **more)]
        return found if host == "x.example" else real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", both)

    connect(("x.example", port), 5).close()
    assert list(at(stub, "x.example", ALLOWS_HTTP).keys("a")) == []
    assert stub.requests


def test_what_does_not_answer_is_no_refusal(monkeypatch: pytest.MonkeyPatch, s3_environment: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", port), 1)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)

    with pytest.raises(StoreUnavailable):
        open_backend(parse_url(f"s3://b?endpoint_url=http://127.0.0.1:{port}"), access=TRUSTED).check(
            for_writing=False
        )


def test_without_a_policy_the_strictest_holds(stub: Stub) -> None:
    with pytest.raises(NotAllowed):
        open_backend(parse_url(f"s3://bucket?endpoint_url={stub.endpoint}"))
    with pytest.raises(NotAllowed):
        at(stub, "127.0.0.1", STRICT)
    pool = ConnectionPool(("169.254.169.254", 80), tls=None, connect_timeout_s=1, read_timeout_s=1)
    with pytest.raises(CarriedError, match="link-local"):
        pool.request(b"GET / HTTP/1.1\r\n\r\n")
