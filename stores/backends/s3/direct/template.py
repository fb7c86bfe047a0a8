"""
The fixed parts of requests of one kind, taken from a request that boto3 has prepared and signed.

boto3 decides where a bucket is, how it is addressed and who signs. A template is made only if a signature computed
here for that very request equals boto3's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from snapferry.stores.backends.s3.direct_path import Keys

from .sigv4 import ALGORITHM, CHECKSUM, Signer

# The headers that every request has, which the direct path sends as well. Any other header has an unknown purpose.
_KNOWN_HEADERS: Final = {
    "authorization", "user-agent", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token",
    "amz-sdk-invocation-id", "amz-sdk-request", "content-length", CHECKSUM,
}  # fmt: skip
# The headers that the settings of a store add; all requests of one kind have the same values.
_SETTINGS: Final = {
    "x-amz-acl", "x-amz-request-payer", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-storage-class", "x-amz-tagging",
}  # fmt: skip
NOTHING_MORE: Final[Mapping[str, str]] = {}
_authorization = re.compile(
    rf"{ALGORITHM} Credential=[^/]+/[0-9]{{8}}/([^/]+)/s3/aws4_request, SignedHeaders=[^ ]+, Signature=[0-9a-f]+"
)
# Keys that need no escaping in a URL, such as all keys that `stores.address` makes.
_plain_key = re.compile(r"[A-Za-z0-9._~/-]+").fullmatch


class Template(NamedTuple):
    """The fixed parts of requests of one kind. *path* is the path of the URL up to the key."""

    address: tuple[str, int]
    tls: bool
    path: str
    user_agent: str
    signer: Signer

    def path_of(self, key: str) -> str:
        """Return the path of the URL of *key*."""
        return self.path + (key if _plain_key(key) else quote(key, safe="/~"))

    def head(
        self, keys: Keys, method: str, path: str, query: str, body_sha256: str, checksum: str = ""
    ) -> str:
        """Return the head of a signed request without its last, empty line. The parameters are `Signer.headers`'."""
        signed = self.signer.headers(keys, method, path, query, body_sha256, checksum=checksum)
        target = f"{path}?{query}" if query else path
        return f"{method} {target} HTTP/1.1\r\n{signed}User-Agent: {self.user_agent}\r\n"

    def head_with(self, keys: Keys, method: str, path: str, more: Mapping[str, str]) -> str:
        """As `head`, for a request without a query and a body that also has the headers *more*, in lowercase."""
        signed = self.signer.headers_with(keys, method, path, more)
        return f"{method} {path} HTTP/1.1\r\n{signed}User-Agent: {self.user_agent}\r\n"

    @property
    def url(self) -> str:
        """The URL up to the key, for errors."""
        return f"{'https' if self.tls else 'http'}://{self.address[0]}:{self.address[1]}{self.path}"


def template_of(
    request: Any, keys: Keys, body: bytes = b"", more: Mapping[str, str] = NOTHING_MORE
) -> Template | None:
    """
    Return the template of *request*, which boto3 has signed with *keys*; *body* is its body, *more* its own headers.

    None where the request has anything that is unknown here, or where the two signatures differ.
    """
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    url = urlsplit(request.url)
    signed = _authorization.fullmatch(headers.get("authorization", ""))
    if signed is None or not headers.keys() <= _KNOWN_HEADERS | _SETTINGS | more.keys() or not url.hostname:
        return None
    tls = url.scheme == "https"
    default_port = 443 if tls else 80
    port = url.port or default_port
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    host = name if port == default_port else f"{name}:{port}"
    signer = Signer(signed[1], host, [(name, headers[name]) for name in headers.keys() & _SETTINGS])
    query = "&".join(sorted(url.query.split("&")))
    timestamp, checksum = headers.get("x-amz-date", ""), headers.get(CHECKSUM, "")
    if more:
        ours = signer.headers_with(keys, request.method, url.path, more, timestamp)
    else:
        ours = signer.headers(
            keys, request.method, url.path, query, sha256(body).hexdigest(), timestamp, checksum
        )
    if f"\r\nAuthorization: {headers['authorization']}\r\n" not in ours:
        return None
    return Template((url.hostname, port), tls, url.path, headers.get("user-agent", ""), signer)
