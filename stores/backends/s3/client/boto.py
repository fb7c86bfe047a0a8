"""
Changes to a client of boto3: how its connections wait, how it pauses between attempts, and what it parses.

*paced*: an answer that asks to slow down slows the process down (`http.pace`).
*interruptible*: its connections use `http.sockets`, and its pauses have checkpoints.
*strict*: booleans of answers are true or false (`strict_parser`).
*bounded*: only an object may be longer than `MAX_PAGE_BYTES`, and no call begins another attempt after `CALL_S`.

botocore has no public names for the HTTP session of a client, so this module reads private ones. An assertion fails
with a version of botocore that lacks them.
"""
# ruff: noqa: SLF001

from __future__ import annotations

import logging
import re
import socket
import time
from functools import cache
from typing import Any, Final

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.retries import standard
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from snapferry.stores.backends.s3.http.attempts import note_outcome, seconds_of_call
from snapferry.stores.backends.s3.http.errors import checkpoint_through_boto
from snapferry.stores.backends.s3.http.interim import FinalResponse, is_interim, skip_headers
from snapferry.stores.backends.s3.http.sockets import MAX_PAGE_BYTES, PlainSocket, TLSSocket, connect
from snapferry.stores.backends.s3.http.xml_limits import check_xml
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy
from snapferry.stores.runtime.interruption import SLICE_S

from .strict_parser import StrictParsers

logger = logging.getLogger(__name__)

# Seconds after which a call begins no further attempt. One attempt may take longer.
CALL_S: Final = 300

_region = re.compile(r"[A-Za-z0-9-]{1,63}").fullmatch

_RETRY: Final = "needs-retry.s3"
_RETRY_ID: Final = "retry-config-s3"


def connects_directly(client: Any) -> bool:
    """Return whether *client* connects to the server itself, verifies its certificate, and sends none of its own."""
    http = getattr(getattr(client, "_endpoint", None), "http_session", None)
    proxies, client_certificate = getattr(http, "_proxy_config", None), getattr(http, "_cert_file", "unknown")
    if proxies is None or client_certificate is not None or trusted_authorities(client) is None:
        return False
    return not proxies.proxy_url_for(client.meta.endpoint_url)


def trusted_authorities(client: Any) -> str | bool | None:
    """Return the file of certificates that *client* trusts, True for the default ones, None for anything else."""
    found = getattr(getattr(getattr(client, "_endpoint", None), "http_session", None), "_verify", None)
    return found if found is True or isinstance(found, str) else None


def adapt(client: Any, *, attempts: int, ip_policy: IpPolicy) -> None:
    """
    Change *client*, a new one, as described above.

    *attempts*: the most attempts that one call makes. The client connects only where *ip_policy* allows.
    """
    session = client._endpoint.http_session
    # Without these attributes, connections would not be watched.
    assert hasattr(session, "_pool_classes_by_scheme")
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = _pools(ip_policy)
    assert hasattr(client._endpoint, "_response_parser_factory")
    client._endpoint._response_parser_factory = StrictParsers()
    client.meta.events.register_first("before-parse.s3", _check_body)
    client.meta.events.register_first(_RETRY, _drop_odd_region)
    # The first `unregister` removes boto3's own handler, the second one a new handler, which is called below instead.
    client.meta.events.unregister(_RETRY, unique_id=_RETRY_ID)
    handler = standard.register_retry_handler(client, attempts)
    client.meta.events.unregister(_RETRY, unique_id=_RETRY_ID)

    throttling = standard.ThrottlingErrorDetector(standard.RetryEventAdapter())

    def needs_retry(**about: object) -> float | None:
        note_outcome(throttled=throttling.is_throttling_error(**about))
        pause_s: float | None = handler.needs_retry(**about)
        if pause_s is None or seconds_of_call() + pause_s >= CALL_S:
            return None
        left_s = pause_s
        while left_s > 0:
            checkpoint_through_boto()
            time.sleep(min(left_s, SLICE_S))
            left_s -= SLICE_S
        # boto3 retries if this is not None, after as many seconds.
        return 0

    client.meta.events.register(_RETRY, needs_retry, unique_id=_RETRY_ID)


def _check_body(response_dict: dict[str, Any], **_: object) -> None:
    body = response_dict.get("body")
    if isinstance(body, bytes):
        check_xml(body)


def _drop_odd_region(response: Any = None, **_: object) -> None:
    """Remove a malformed region from an answer: boto3 would use it for every later call."""
    parsed = response[1] if response is not None else {}
    for place, name in (
        (parsed.get("ResponseMetadata", {}).get("HTTPHeaders"), "x-amz-bucket-region"),
        (parsed.get("Error"), "Region"),
    ):
        if isinstance(place, dict) and name in place and not _region(str(place[name])):
            del place[name]


class _Watching:
    """A connection of urllib3 with a socket of `http.sockets`."""

    ip_policy = ANYWHERE_BUT_LINK_LOCAL
    response_class = FinalResponse
    _gets_object = False
    _joins_parts = False

    def _new_conn(self: Any) -> PlainSocket:
        try:
            return connect(
                (self._dns_host, self.port), self.timeout, self.socket_options or (), self.ip_policy
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host}: {error}") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection to {self.host}: {error}") from error

    def connect(self: Any) -> None:
        if getattr(self, "ssl_context", None) is not None:
            self.ssl_context.sslsocket_class = TLSSocket
        super().connect()  # type: ignore[misc]
        self._begin_request()

    def request(self: Any, method: str, url: str, *args: Any, **more: Any) -> Any:
        self._gets_object = method == "GET" and "?" not in url
        self._joins_parts = method == "POST" and "uploadId=" in url
        if self.sock is not None:
            self._begin_request()
        return super().request(method, url, *args, **more)  # type: ignore[misc]

    def getresponse(self: Any) -> Any:
        # urllib3 forgets the socket where the server will close the connection.
        connection = self.sock
        response = super().getresponse()  # type: ignore[misc]
        if isinstance(connection, PlainSocket | TLSSocket):
            is_object = self._gets_object and response.status < 300
            connection.allow(None if is_object else MAX_PAGE_BYTES)
        return response

    # boto3 waits for "100 Continue" before it sends a large body. Its own code for reading that answer never ends
    # where the connection ends.

    def _is_100_continue_status(self: Any, line: bytes) -> bool:
        status = line.split(None, 2)[1:2]
        return (
            line.startswith(b"HTTP/") and bool(status) and status[0].isdigit() and is_interim(int(status[0]))
        )

    def _consume_headers(self: Any, stream: Any) -> None:
        skip_headers(stream)

    def _begin_request(self: Any) -> None:
        if isinstance(self.sock, PlainSocket | TLSSocket):
            self.sock.begin_request(joining=self._joins_parts)


@cache
def _pools(allowed: IpPolicy) -> dict[str, Any]:
    """Return pools of connections, by scheme, that connect only where *allowed* allows."""

    class Connection(_Watching, AWSHTTPConnection):  # type: ignore[misc]
        ip_policy = allowed

    class TLSConnection(_Watching, AWSHTTPSConnection):  # type: ignore[misc]
        ip_policy = allowed

    class Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Connection

    class TLSPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = TLSConnection

    return {"http": Pool, "https": TLSPool}
