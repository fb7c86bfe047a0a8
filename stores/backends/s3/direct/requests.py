"""
GET, PUT, HEAD and LIST, and parts of uploads, without boto3: the implementation of `DirectPath`.

*ordinary answers only*: any other answer, and every failure, goes to boto3 as the outcome of its first attempt
(`Fallback`). boto3 decides what it means and whether to retry; nothing is sent twice.
"""

from __future__ import annotations

import io
import re
import ssl
from binascii import b2a_base64
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from hashlib import sha256
from html import unescape
from typing import Final, cast
from urllib.parse import quote

from botocore import exceptions as boto

from snapferry.stores.backends.s3.direct_path import (
    Credentials,
    Fallback,
    Keys,
    NewObject,
    NewPart,
    RangeAnswer,
    Request,
    Response,
    ResponseBody,
)
from snapferry.stores.backends.s3.http.bounded_body import announced_too_long
from snapferry.stores.backends.s3.http.errors import AnswerTooLong
from snapferry.stores.backends.s3.listing import Page
from snapferry.stores.backends.s3.sizes import EXPECT_BYTES, MAX_OBJECT_BYTES

from .http1 import FAILURES, ConnectionPool, NotConnected
from .in_flight import PooledRequest, exchange
from .listing import NotAPage, read_page
from .response import MAX_ANSWER_BYTES, Body, Head
from .sigv4 import EMPTY_SHA256
from .template import NOTHING_MORE, Template

# A success that is not understood here, a redirect, or a request that the server rejects: if boto3 succeeds where
# the direct path got one of these, the direct path was at fault.
_BLAMES_PATH: Final = {200, 301, 302, 303, 307, 308, 400, 401, 403, 405, 411, 501}
_ETAG: Final = b"\r\netag:"
_CONTENT_RANGE: Final = b"\r\ncontent-range:"
_COPIED: Final = b"</CopyObjectResult>"
_copied = re.compile(rb"<ETag>([^<]+)</ETag>").search
_PARAMETERS: Final = {
    "Prefix": "prefix",
    "StartAfter": "start-after",
    "ContinuationToken": "continuation-token",
}


class DirectRequests:
    """
    Requests for the keys below one prefix of a bucket; see `DirectPath`.

    The templates are those of a GET or HEAD, of a PUT, and of a LIST, each for a key of one letter. *credentials* sign
    the requests. *pool_of* returns the connections to the server of a template. *copying_of* and *ranges_of* return the
    template of a copy and of a GET with such headers, *part_of* that of a part of an upload.
    """

    def __init__(
        self,
        credentials: Credentials,
        reading: Template,
        writing: Template,
        listing: Template,
        pool_of: Callable[[Template], ConnectionPool],
        copying_of: Callable[[Mapping[str, str]], Template | None],
        ranges_of: Callable[[Mapping[str, str]], Template | None],
        part_of: Callable[[Mapping[str, str]], Template | None],
    ) -> None:
        self._credentials = credentials
        self._reading = reading._replace(path=reading.path[:-1])
        self._writing = writing._replace(path=writing.path[:-1])
        self._listing = listing
        self._copying = _TemplatesWith(copying_of, credentials)
        self._ranges = _TemplatesWith(ranges_of, credentials)
        self._part = _TemplatesWith(part_of, credentials)
        self.pool = pool_of(reading)
        """The connections for objects."""
        self._listing_pool = pool_of(listing)

    def size(self, key: str) -> int | None:
        """Return the length in bytes of the object under *key*, None if the answer is 404."""
        template, keys = self._reading, self._credentials.get_frozen_credentials()
        request = f"{template.head(keys, 'HEAD', template.path_of(key), '', EMPTY_SHA256)}\r\n".encode()
        try:
            answer = self.pool.request(request, bodyless=True)
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        if not isinstance(answer, Head):
            raise _odd(answer, keys)
        self.pool.finish(answer)
        return answer.length if answer.status == 200 else None

    def get(self, key: str) -> tuple[io.BytesIO | ResponseBody, str]:
        """Return the object under *key*, in memory if it is short, and its ETag."""
        template, keys = self._reading, self._credentials.get_frozen_credentials()
        try:
            answer = self.pool.request(_get(template, keys, key), streamed=True)
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        if not isinstance(answer, Head):
            # An object without an announced length may have any length, so boto3 requests it again and streams it.
            raise _odd(answer if answer.status >= 300 else None, keys)
        if answer.length <= MAX_ANSWER_BYTES:
            # Where a body breaks off, that is not the outcome of an attempt: boto3 does not retry it either.
            body = self.pool.read_short(answer)
            self.pool.finish(answer)
            return io.BytesIO(body), answer.header(_ETAG)
        if answer.length > MAX_OBJECT_BYTES:
            answer.connection.close()
            raise AnswerTooLong(announced_too_long(answer.length))
        return Body(answer, self.pool.release), answer.header(_ETAG)

    def get_range(self, key: str, headers: Mapping[str, str]) -> RangeAnswer:
        """Return the range of the object under *key* that *headers* name."""
        template, keys = self._ranges.find(headers), self._credentials.get_frozen_credentials()
        request = f"{template.head_with(keys, 'GET', template.path_of(key), headers)}\r\n".encode()
        try:
            answer = self.pool.request(request, streamed=True, partial=True)
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        if not isinstance(answer, Head):
            raise _odd(answer if answer.status >= 300 else None, keys)
        body = Body(answer, self.pool.release)
        content_range = answer.header(_CONTENT_RANGE)
        if not content_range:
            # The whole object, from a server that does not support ranges.
            body.close()
        return RangeAnswer(content_range, answer.header(_ETAG), body)

    def put(self, key: str, data: bytes, content_md5: str = "", *, checksum: bool = False) -> str:
        """Store *data* under *key* and return the ETag; the parameters are `DirectPath.put`'s."""
        template, keys = self._writing, self._credentials.get_frozen_credentials()
        try:
            answer = self.pool.request(_put(template, keys, key, data, content_md5, checksum=checksum))
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        return self._etag_after_write(template, keys, answer)

    def to_get(self, key: str, then: Callable[[bytes], object]) -> PooledRequest:
        """Return the request for the short object under *key*."""
        data = _get(self._reading, self._credentials.get_frozen_credentials(), key)
        return PooledRequest(self.pool, data, lambda _, body: then(body))

    def to_put(self, new: NewObject, then: Callable[[str], object], *, checksum: bool) -> PooledRequest:
        """Return the request that stores *new*."""
        data = _put(self._writing, self._credentials.get_frozen_credentials(), *new, checksum=checksum)
        # A success that tells an error after all is none.
        return PooledRequest(
            self.pool, data, lambda head, body: None if b"<Error" in body else then(head.header(_ETAG))
        )

    def exchange(self, requests: Iterable[Request], most: int) -> Generator[object]:
        """Send *requests* of this class; see `DirectPath.exchange`."""
        return exchange(cast("Iterator[PooledRequest]", iter(requests)), most)

    def put_part(self, key: str, part: NewPart) -> str:
        """Send *part* of an upload to *key*, and return its ETag as the server sends it."""
        template, keys = self._part.find(NOTHING_MORE), self._credentials.get_frozen_credentials()
        query = f"partNumber={part.number}&uploadId={quote(part.upload, safe='-_.~')}"
        encoded = b2a_base64(part.sha256, newline=False).decode() if part.checksum else ""
        head = template.head(keys, "PUT", template.path_of(key), query, part.sha256.hex(), encoded)
        head += _content_md5(part.content_md5)
        expects = len(part.data) > EXPECT_BYTES
        if expects:
            head += "Expect: 100-continue\r\n"
        request = f"{head}Content-Length: {len(part.data)}\r\n\r\n".encode()
        try:
            with memoryview(part.data) as body:
                answer = self.pool.request_with_body(request, body, expects=expects)
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        etag = self._etag_after_write(template, keys, answer)
        if not etag:
            # Without its ETag, a part cannot be joined with the others. boto3 says so.
            raise Fallback(None, keys=keys, blames_path=False)
        return etag

    def _etag_after_write(self, template: Template, keys: Keys, answer: Head | Response) -> str:
        if not isinstance(answer, Head):
            raise _odd(answer, keys)
        if not answer.length:
            self.pool.finish(answer)
            return answer.header(_ETAG)
        try:
            rest = self.pool.read_rest(answer)
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        # A success has no body. A server that reports an error after it has sent 200 has one, for boto3 to read.
        if b"<Error" in rest.body:
            raise _odd(rest, keys)
        return answer.header(_ETAG)

    def copy(self, key: str, headers: Mapping[str, str]) -> str:
        """Let the server copy to *key* what *headers* name; return the copy's ETag."""
        template, keys = self._copying.find(headers), self._credentials.get_frozen_credentials()
        head = template.head_with(keys, "PUT", template.path_of(key), headers)
        try:
            answer = self.pool.request(f"{head}Content-Length: 0\r\n\r\n".encode())
            whole = self.pool.read_rest(answer) if isinstance(answer, Head) else answer
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        found = _copied(whole.body) if whole.status == 200 and _COPIED in whole.body else None
        if found is None or b"<Error" in whole.body:
            raise _odd(whole, keys)
        return unescape(found[1].decode("latin-1")).strip()

    def page(self, parameters: Mapping[str, str]) -> Page:
        """Return a page of ListObjectsV2."""
        template, keys = self._listing, self._credentials.get_frozen_credentials()
        named = {"list-type": "2", "encoding-type": "url"}
        named |= {_PARAMETERS[name]: value for name, value in parameters.items()}
        query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(named.items()))
        request = f"{template.head(keys, 'GET', template.path, query, EMPTY_SHA256)}\r\n".encode()
        try:
            answer = self._listing_pool.request_page(request)
        except FAILURES as error:
            raise _failed(template, keys, error) from error
        if answer.status != 200:
            raise _odd(answer, keys)
        try:
            return read_page(answer.body)
        except NotAPage as error:
            raise _odd(answer, keys) from error


class _TemplatesWith:
    """The templates of requests that have headers of their own; *make* makes one, with the keys of *credentials*."""

    def __init__(
        self, make: Callable[[Mapping[str, str]], Template | None], credentials: Credentials
    ) -> None:
        self._make = make
        self._credentials = credentials
        self._made: dict[frozenset[str], Template | None] = {}

    def find(self, headers: Mapping[str, str]) -> Template:
        """Return the template of a request with *headers*. Raises `Fallback` where boto3 must send it."""
        names = frozenset(headers)
        if names not in self._made:
            keys = self._credentials.get_frozen_credentials()
            found = self._make(headers)
            if found is None and self._credentials.get_frozen_credentials() != keys:
                # boto3 may have signed with other keys. The next request finds out.
                raise Fallback(None, keys=None, blames_path=False)
            self._made[names] = found and found._replace(path=found.path[:-1])
        template = self._made[names]
        if template is None or not all(value.isascii() for value in headers.values()):
            raise Fallback(None, keys=None, blames_path=False)
        return template


def _get(template: Template, keys: Keys, key: str) -> bytes:
    """Return the request for the object under *key*."""
    return f"{template.head(keys, 'GET', template.path_of(key), '', EMPTY_SHA256)}\r\n".encode()


def _put(template: Template, keys: Keys, key: str, data: bytes, content_md5: str, *, checksum: bool) -> bytes:
    """Return the request that stores *data* under *key*."""
    digest = sha256(data)
    encoded = b2a_base64(digest.digest(), newline=False).decode() if checksum else ""
    head = template.head(keys, "PUT", template.path_of(key), "", digest.hexdigest(), encoded)
    head += _content_md5(content_md5)
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def _content_md5(md5: str) -> str:
    # Not signed, which Amazon does not require of it: it is compared with the body, and guards nothing else.
    return f"Content-MD5: {b2a_base64(bytes.fromhex(md5), newline=False).decode()}\r\n" if md5 else ""


def _odd(answer: Response | None, keys: Keys) -> Fallback:
    """Return the fallback for an *answer* that is not an ordinary one; None: boto3 sends the request again."""
    return Fallback(answer, keys=keys, blames_path=answer is None or answer.status in _BLAMES_PATH)


def _failed(template: Template, keys: Keys, error: Exception) -> Fallback:
    """Return the fallback for *error*, with the exception that boto3 would have raised."""
    kind = boto.ConnectionClosedError
    timeout = boto.ReadTimeoutError
    cause: BaseException = error
    if isinstance(error, NotConnected):
        kind, timeout = boto.EndpointConnectionError, boto.ConnectTimeoutError
        cause = error.__cause__ or error
    blames_path = False
    if isinstance(cause, TimeoutError):
        kind = timeout
    elif isinstance(cause, ssl.SSLError):
        kind = boto.SSLError
        # A handshake that is cut off is the server's fault. One that is refused may be ours.
        blames_path = not isinstance(cause, ssl.SSLEOFError)
    return Fallback(kind(endpoint_url=template.url, error=cause), keys=keys, blames_path=blames_path)
