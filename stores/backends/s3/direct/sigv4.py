"""
AWS Signature Version 4 for requests of one plain form.

The algorithm is that of Amazon's documentation, "Authenticating Requests: Using the Authorization Header"
(https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html). `template` compares a signature made
here with botocore's for the same request before it trusts this module.

What the requests of one second have in common is computed once.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from snapferry.stores.backends.s3.direct_path import Keys

if TYPE_CHECKING:
    # Only the stubs of the type checker have this name.
    from hashlib import _Hash as HASH

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY_SHA256: Final = sha256(b"").hexdigest()
CONTENT_SHA256: Final = "x-amz-content-sha256"
CHECKSUM: Final = "x-amz-checksum-sha256"


class Signer:
    """
    Signs requests to *host* in *region*. Safe to share between threads.

    *extra* are headers, by their names in lowercase, which every request has.
    """

    def __init__(self, region: str, host: str, extra: Iterable[tuple[str, str]] = ()) -> None:
        self._region = region
        self._host = host
        self._extra = dict(extra)
        self._lines_before_checksum = "".join(
            f"{n}:{v}\n" for n, v in sorted(self._extra.items()) if n < CHECKSUM
        )
        self._second: _Second | None = None
        self._clock = (0, "")

    def headers(
        self,
        keys: Keys,
        method: str,
        path: str,
        query: str,
        body_sha256: str,
        timestamp: str = "",
        checksum: str = "",
    ) -> str:
        """
        Return the header lines that authenticate a request with *keys*, each with its line end.

        *path* and *query* are as they are sent; the names in *query* are sorted. *body_sha256* is in hex. *timestamp*
        has the form ``20260102T030405Z``; without one, the clock is read. *checksum* is the SHA-256 of the body in
        base 64, where ``x-amz-checksum-sha256`` is sent.
        """
        timestamp = timestamp or self._now()
        second = self._second
        if second is None or second.timestamp != timestamp or second.keys != keys:
            second = self._second = self._prepare(keys, timestamp)
        kind = second.with_checksum if checksum else second.plain
        checksum_line = f"{CHECKSUM}:{checksum}\n" if checksum else ""
        request = (
            f"{method}\n{path}\n{query}\nhost:{self._host}\n{self._lines_before_checksum}{checksum_line}"
            f"x-amz-content-sha256:{body_sha256}\n{kind.canonical_end}\n{body_sha256}"
        )
        text = f"{second.text}{sha256(request.encode()).hexdigest()}"
        checksum_header = f"{CHECKSUM}: {checksum}\r\n" if checksum else ""
        return (
            f"X-Amz-Content-SHA256: {body_sha256}\r\n{checksum_header}{kind.headers}{second.sign(text)}\r\n"
        )

    def headers_with(
        self, keys: Keys, method: str, path: str, more: Mapping[str, str], timestamp: str = ""
    ) -> str:
        """As `headers`, for a request without a query and a body that also has the headers *more*, in lowercase."""
        timestamp = timestamp or self._now()
        second = self._second
        if second is None or second.timestamp != timestamp or second.keys != keys:
            second = self._second = self._prepare(keys, timestamp)
        fields = {"host": self._host, CONTENT_SHA256: EMPTY_SHA256, "x-amz-date": timestamp}
        fields |= self._extra | dict(more)
        if keys.token:
            fields["x-amz-security-token"] = keys.token
        signed = ";".join(sorted(fields))
        # In a signature, a run of spaces counts as one space. An ETag may have such runs.
        lines = "".join(f"{name}:{' '.join(value.split())}\n" for name, value in sorted(fields.items()))
        request = f"{method}\n{path}\n\n{lines}\n{signed}\n{EMPTY_SHA256}"
        scope = second.text.split("\n")[2]
        signature = second.sign(f"{second.text}{sha256(request.encode()).hexdigest()}")
        headers = "".join(f"{name.title()}: {value}\r\n" for name, value in fields.items())
        return (
            f"{headers}Authorization: {ALGORITHM} Credential={keys.access_key}/{scope},"
            f" SignedHeaders={signed}, Signature={signature}\r\n"
        )

    def _now(self) -> str:
        now = int(time.time())
        second, timestamp = self._clock
        if second != now:
            timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            self._clock = (now, timestamp)
        return timestamp

    def _prepare(self, keys: Keys, timestamp: str) -> _Second:
        scope = f"{timestamp[:8]}/{self._region}/s3/aws4_request"
        key = f"AWS4{keys.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return _Second(
            keys,
            timestamp,
            text=f"{ALGORITHM}\n{timestamp}\n{scope}\n",
            plain=self._kind(keys, timestamp, scope),
            with_checksum=self._kind(keys, timestamp, scope, CHECKSUM),
            inner=sha256(key.ljust(64, b"\0").translate(_INNER)),
            outer=sha256(key.ljust(64, b"\0").translate(_OUTER)),
        )

    def _kind(self, keys: Keys, timestamp: str, scope: str, *more: str) -> _Kind:
        """Return the fixed text of requests that have the headers *more* besides those of every request."""
        fixed = {"x-amz-date": timestamp} | self._extra
        if keys.token:
            fixed["x-amz-security-token"] = keys.token
        signed = ";".join(sorted([*fixed, *more, "host", CONTENT_SHA256]))
        lines = "".join(f"{name}:{value}\n" for name, value in sorted(fixed.items()) if name > CONTENT_SHA256)
        headers = "".join(f"{name.title()}: {value}\r\n" for name, value in fixed.items())
        return _Kind(
            f"{lines}\n{signed}",
            f"Host: {self._host}\r\n{headers}Authorization: {ALGORITHM}"
            f" Credential={keys.access_key}/{scope}, SignedHeaders={signed}, Signature=",
        )


_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class _Kind(NamedTuple):
    """What requests with the same headers have in common."""

    canonical_end: str
    """The end of the canonical request, before the digest of the body."""
    headers: str


class _Second(NamedTuple):
    """What the requests of one second have in common. *inner* and *outer* are the two halves of an HMAC."""

    keys: Keys
    timestamp: str
    text: str
    plain: _Kind
    with_checksum: _Kind
    inner: HASH
    outer: HASH

    def sign(self, text: str) -> str:
        """Return the HMAC of *text*. Twice as fast as `hmac`, which prepares its key for each text."""
        inner, outer = self.inner.copy(), self.outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()
