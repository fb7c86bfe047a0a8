"""
Signatures of requests to S3: AWS Signature Version 4, for requests of one plain form.

What the requests of one second have in common is prepared once.
`s3_direct` compares with a signature of botocore's before it trusts this.
"""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY_SHA256: Final = sha256(b"").hexdigest()


class Keys(NamedTuple):
    """What signs: one consistent set of credentials."""

    access_key: str
    secret_key: str
    token: str | None


class Credentials(Protocol):
    """Credentials of botocore's: they renew themselves when they are asked for and have grown old."""

    def get_frozen_credentials(self) -> Keys:
        """Return what is valid at this moment."""


class Signer:
    """Signs requests to *host* in *region*. Safe to share between threads."""

    def __init__(self, credentials: Credentials, region: str, host: str) -> None:
        self._credentials = credentials
        self._region = region
        self._host = host
        self._prepared: _Prepared | None = None
        self._clock = (0, "")

    def headers(self, method: str, path: str, query: str, body_sha256: str, stamp: str = "") -> str:
        """
        Return the lines of headers that make a request authentic, each with its line's end.

        *path* and *query* as they are sent; the names in *query* sorted. *stamp*
        is the time in the form ``20260102T030405Z``, that of the clock if not
        given. Raises what the credentials raise when they cannot be renewed.
        """
        keys = self._credentials.get_frozen_credentials()
        stamp = stamp or self._now()
        prepared = self._prepared
        if prepared is None or prepared.stamp != stamp or prepared.keys != keys:
            prepared = self._prepared = self._prepare(keys, stamp)
        request = (
            f"{method}\n{path}\n{query}\nhost:{self._host}\n"
            f"x-amz-content-sha256:{body_sha256}\n{prepared.signed_lines}\n{body_sha256}"
        )
        text = f"{prepared.text}{sha256(request.encode()).hexdigest()}"
        return f"X-Amz-Content-SHA256: {body_sha256}\r\n{prepared.headers}{prepared.sign(text)}\r\n"

    def _now(self) -> str:
        now = int(time.time())
        second, stamp = self._clock
        if second != now:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            self._clock = (now, stamp)
        return stamp

    def _prepare(self, keys: Keys, stamp: str) -> _Prepared:
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        key = f"AWS4{keys.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = "host;x-amz-content-sha256;x-amz-date"
        lines = f"x-amz-date:{stamp}\n"
        headers = f"Host: {self._host}\r\nX-Amz-Date: {stamp}\r\n"
        if keys.token:
            signed += ";x-amz-security-token"
            lines += f"x-amz-security-token:{keys.token}\n"
            headers += f"X-Amz-Security-Token: {keys.token}\r\n"
        headers += (
            f"Authorization: {ALGORITHM} Credential={keys.access_key}/{scope},"
            f" SignedHeaders={signed}, Signature="
        )
        return _Prepared(
            keys,
            stamp,
            signed_lines=f"{lines}\n{signed}",
            text=f"{ALGORITHM}\n{stamp}\n{scope}\n",
            headers=headers,
            inner=sha256(key.ljust(64, b"\0").translate(_INNER)),
            outer=sha256(key.ljust(64, b"\0").translate(_OUTER)),
        )


_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class _Prepared(NamedTuple):
    """What the requests of one second have in common. *inner* and *outer* are the two halves of an HMAC."""

    keys: Keys
    stamp: str
    signed_lines: str
    text: str
    headers: str
    inner: HASH
    outer: HASH

    def sign(self, text: str) -> str:
        """Return the HMAC of *text*. Twice as fast as `hmac`, which prepares its key anew for each."""
        inner, outer = self.inner.copy(), self.outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return outer.hexdigest()
