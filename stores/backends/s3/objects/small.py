"""
Requests for whole objects, and listings. Keys that are given and returned do not have the bucket's prefix.

GET, PUT, HEAD and LIST take the direct path where there is one. A body that ends before its announced length is an
error, so a connection that breaks never looks like a short object.
"""

from __future__ import annotations

import io
import logging
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import md5, sha256
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from snapferry.stores.backend import Listed
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import ResponseBody
from snapferry.stores.backends.s3.errors import TRANSLATED, may_reject_header
from snapferry.stores.backends.s3.features import ServerFeatures
from snapferry.stores.backends.s3.http.bounded_body import BoundedBody
from snapferry.stores.backends.s3.listing import Listing, page_of
from snapferry.stores.backends.s3.sizes import EXPECT_BYTES
from snapferry.stores.errors import KeyMissing, StoreError, StoreUnavailable
from snapferry.stores.rate_limiter import PREPAID_BYTES, RateLimitedReader, settle
from snapferry.stores.requests import GET, HEAD, LIST, PUT
from snapferry.stores.runtime.oversize import far_beyond
from snapferry.stores.streams import OpenReader

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

NO_CONDITION: Final[Mapping[str, str]] = {}


def size(bucket: Bucket, key: str) -> int | None:
    """Return the length in bytes of the object under *key*, None if there is none. Raises `StoreNotFound`."""
    try:
        with bucket.errors(key, missing=KeyMissing):
            found = bucket.direct_or_boto(
                HEAD,
                lambda path: path.size(key),
                lambda: _announced_length(bucket.call("head_object", Key=bucket.full_key(key))),
            )
    except KeyMissing:
        found = None
    if found is None:
        bucket.ensure_exists()
    return found


class Status(NamedTuple):
    """An object as a HEAD shows it: its length in bytes, and its ETag as the server sends it, "" if there is none."""

    length: int
    etag: str


def status(bucket: Bucket, key: str) -> Status | None:
    """Return the status of the object under *key*, None if there is none."""
    try:
        with bucket.errors(key, missing=KeyMissing):
            found = bucket.call("head_object", Key=bucket.full_key(key))
            return Status(_announced_length(found), str(found.get("ETag") or ""))
    except KeyMissing:
        return None


def _announced_length(answer: Any) -> int:
    length = int(answer["ContentLength"])
    if length < 0:
        raise ValueError(f"{length} is not the length of an object")
    return length


def get(bucket: Bucket, key: str, size_hint: int) -> tuple[OpenReader, str]:
    """
    Open the object under *key* by one request; return also its ETag as the server sends it, "" if there is none.

    *size_hint* is the expected length in bytes: the rate limiter grants as many bytes before they are requested, and a
    length far above it is confirmed by a HEAD. Raises `KeyMissing`.
    """
    limiter = bucket.limiter
    prepaid = bucket.prepay(min(max(size_hint, 0), PREPAID_BYTES))
    try:
        with bucket.errors(key, missing=KeyMissing):
            body, etag = bucket.direct_or_boto(
                GET,
                lambda path: path.get(key),
                lambda: _get_by_boto(bucket, key, size_hint),
            )
    except Exception:
        bucket.refund(prepaid)
        raise
    if isinstance(body, io.BytesIO):
        if limiter is not None:
            settle(limiter, prepaid, body.getbuffer().nbytes)
        return body, etag
    reader = _BodyReader(bucket, key, body)
    try:
        confirm_length(bucket, key, reader.length, size_hint)
    except BaseException:
        reader.__exit__(None, None, None)
        raise
    if limiter is None:
        return reader, etag
    return RateLimitedReader(reader, limiter, expected=size_hint, prepaid=prepaid), etag


def _get_by_boto(bucket: Bucket, key: str, size_hint: int) -> tuple[io.BytesIO | ResponseBody, str]:
    answer = bucket.call("get_object", Key=bucket.full_key(key))
    body = BoundedBody(answer["Body"], answer.get("ContentLength"), size_hint)
    return body, str(answer.get("ETag") or "")


def confirm_length(bucket: Bucket, key: str, length: int | None, size_hint: int) -> None:
    """Raise `StoreUnavailable` where *length* is far above *size_hint* and the answer to a HEAD has another length."""
    if length is None or length <= far_beyond(size_hint):
        return
    second = size(bucket, key)
    if second != length:
        detail = f"the answers to GET and HEAD give different lengths: {length:,} and {second:,}"
        raise StoreUnavailable(bucket.label, key, detail)


class _BodyReader:
    """An object that is being read. Left before its end, its connection is closed and not used again."""

    def __init__(self, bucket: Bucket, key: str, body: ResponseBody) -> None:
        self._bucket = bucket
        self._key = key
        self._body = body
        self.length = body.length

    def read(self, size: int, /) -> bytes:
        with self._bucket.errors(self._key):
            return self._body.read(size)

    def read_into(self, buffer: memoryview, /) -> int:
        with self._bucket.errors(self._key):
            return self._body.read_into(buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with suppress(*TRANSLATED):
            self._body.close()


def put(
    bucket: Bucket,
    key: str,
    data: bytes,
    content_md5: str = "",
    condition: Mapping[str, str] = NO_CONDITION,
) -> str:
    """
    Send *data*, and return the ETag of what was stored, without quotes and in lowercase.

    *condition*: boto3's parameters for what may be replaced.
    *content_md5*: the MD5 of *data* in hex, to send as Content-MD5. The SHA-256 is sent as well, until a server
    rejects that header.
    """
    etag = with_checksum(
        bucket,
        bucket.features,
        lambda checksum: _put(bucket, key, data, content_md5, condition, checksum=checksum),
    )
    return etag.strip('"').lower()


def with_checksum(bucket: Bucket, features: ServerFeatures, send: Callable[[bool], _T]) -> _T:
    """
    Return what *send* returns, which creates an object or an upload, with a checksum header if it is called with True.

    *features*: those of objects or of parts. Where the server rejects the header, *send* is called again without it,
    and so is every later one with these features. Raises what *send* raises.
    """
    checksum = features.checksums
    try:
        sent = send(checksum)
    except StoreError as error:
        if not checksum or features.checksum_accepted or not may_reject_header(error):
            raise
        try:
            sent = send(False)
        except StoreError:
            raise error from error.__cause__
        features.checksums = False
        logger.info("%s: the server rejects checksums of writes", bucket.label)
    else:
        features.checksum_accepted = True
    return sent


def _put(
    bucket: Bucket, key: str, data: bytes, content_md5: str, condition: Mapping[str, str], *, checksum: bool
) -> str:
    with bucket.errors(key):
        if len(data) > EXPECT_BYTES or condition:
            return etag_of(put_by_boto(bucket, key, data, content_md5, condition, checksum=checksum))
        return bucket.direct_or_boto(
            PUT,
            lambda path: path.put(key, data, content_md5, checksum=checksum),
            lambda: etag_of(put_by_boto(bucket, key, data, content_md5, checksum=checksum)),
            body_bytes=len(data),
        )


def put_by_boto(
    bucket: Bucket,
    key: str,
    data: bytes,
    content_md5: str = "",
    condition: Mapping[str, str] = NO_CONDITION,
    *,
    checksum: bool,
) -> Any:
    """Send *data* by boto3, and return its answer. Raises what boto3 raises."""
    more = {**content_md5_header(content_md5), **condition}
    if checksum:
        more["ChecksumSHA256"] = sha256_base64(data)
    return bucket.call("put_object", Key=bucket.full_key(key), Body=data, **more)


def delete(bucket: Bucket, key: str) -> None:
    """Delete *key*. Does nothing where there is no object under it."""
    with suppress(KeyMissing), bucket.errors(key, missing=KeyMissing):
        bucket.call("delete_object", Key=bucket.full_key(key))


def list_keys(bucket: Bucket, prefix: str, start_after: str = "") -> Iterator[Listed]:
    """Yield the keys that begin with *prefix* and sort after *start_after*, in byte order. Raises `StoreNotFound`."""
    listing = Listing(
        bucket.label,
        prefix,
        bucket.full_key(prefix),
        bucket.full_key(start_after) if start_after else "",
    )
    parameters = listing.parameters
    while True:
        with bucket.errors(prefix):
            page = bucket.direct_or_boto(
                LIST,
                lambda path: path.page(parameters),
                lambda: page_of(bucket.call("list_objects_v2", **parameters)),
            )
        bucket.note_exists()
        for full_key, size_bytes, modified in listing.new_keys(page):
            yield Listed(bucket.key_of(full_key), size_bytes, modified)
        if not page.truncated:
            return


def content_md5_header(digest: str) -> dict[str, str]:
    """Return boto3's parameter for the Content-MD5 of a body whose MD5 in hex is *digest*; none if that is ""."""
    return {"ContentMD5": b64encode(bytes.fromhex(digest)).decode()} if digest else {}


def md5_of(data: bytes | bytearray) -> str:
    """
    Return the MD5 of *data* in hex, "" on a machine whose OpenSSL does not provide it (FIPS).

    S3 uses it against errors of transport. It does not protect against an attacker.
    """
    try:
        return md5(data, usedforsecurity=False).hexdigest()
    except ValueError:
        return ""


def sha256_base64(data: bytes | bytearray) -> str:
    """Return the SHA-256 of *data* as the header ``x-amz-checksum-sha256`` has it."""
    return b64encode(sha256(data).digest()).decode()


def etag_of(answer: Mapping[str, Any]) -> str:
    """Return the ETag of boto3's *answer* without its quotes and in lowercase, "" where there is none."""
    return str(answer.get("ETag") or "").strip('"').lower()
