"""
Signatures of requests to S3: AWS Signature Version 4, for requests of one plain form.

What is prepared once a day, or once for all requests, is not done for each.
`s3_direct` compares with a signature of botocore's before it trusts this.
"""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

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
        self._prepared: tuple[str, str, bytes] = ("", "", b"")

    def headers(self, method: str, path: str, query: str, body_sha256: str, stamp: str = "") -> str:
        """
        Return the lines of headers that make a request authentic, each with its line's end.

        *path* and *query* as they are sent; the names in *query* sorted. *stamp*
        is the time in the form ``20260102T030405Z``, that of the clock if not
        given. Raises what the credentials raise when they cannot be renewed.
        """
        keys = self._credentials.get_frozen_credentials()
        stamp = stamp or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        signed = "host;x-amz-content-sha256;x-amz-date"
        lines = f"host:{self._host}\nx-amz-content-sha256:{body_sha256}\nx-amz-date:{stamp}\n"
        token = ""
        if keys.token:
            signed += ";x-amz-security-token"
            lines += f"x-amz-security-token:{keys.token}\n"
            token = f"X-Amz-Security-Token: {keys.token}\r\n"
        request = f"{method}\n{path}\n{query}\n{lines}\n{signed}\n{body_sha256}"
        scope = f"{stamp[:8]}/{self._region}/s3/aws4_request"
        text = f"{ALGORITHM}\n{stamp}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key(keys.secret_key, stamp[:8]), text.encode(), "sha256").hex()
        return (
            f"Host: {self._host}\r\nX-Amz-Content-SHA256: {body_sha256}\r\nX-Amz-Date: {stamp}\r\n{token}"
            f"Authorization: {ALGORITHM} Credential={keys.access_key}/{scope},"
            f" SignedHeaders={signed}, Signature={signature}\r\n"
        )

    def _key(self, secret: str, day: str) -> bytes:
        prepared = self._prepared
        if prepared[:2] != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            prepared = self._prepared = (secret, day, key)
        return prepared[2]
