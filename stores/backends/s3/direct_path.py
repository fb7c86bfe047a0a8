"""
The seam to the direct path: what this package needs of a client that sends requests to S3 without boto3.

For small objects, boto3's own work is most of what a request costs (docs/adr/0011-s3-client.md). So GET, PUT,
HEAD of objects and pages of listings take a `DirectPath` where there is one. So do the parts of uploads, which boto3
copies and hashes once more (docs/adr/0069-parts-directly.md). Everything else, and every request that
does not end in an ordinary answer, is boto3's.

The implementation is ``direct/``: an HTTP client over `socket` and a signer. `client.clients` makes a `DirectPaths`
and is the only module that may import ``direct/``; `lint-imports` checks that. To replace it, with obstore for
example, implement the two protocols below and make them there. That is a day's work, and nothing else changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from snapferry.stores.streams import Buffer

from .listing import Page

COPY_HEADERS: Final[Mapping[str, str]] = {
    "x-amz-copy-source": "CopySource",
    "x-amz-copy-source-if-match": "CopySourceIfMatch",
    "x-amz-metadata-directive": "MetadataDirective",
    "x-amz-tagging-directive": "TaggingDirective",
}
"""The headers of a copy -> boto3's parameters."""

RANGE_HEADERS: Final[Mapping[str, str]] = {"range": "Range", "if-match": "IfMatch"}
"""The headers of a request for a range -> boto3's parameters."""


class Keys(NamedTuple):
    """One consistent set of credentials."""

    access_key: str
    secret_key: str
    token: str | None


class Credentials(Protocol):
    """Credentials that renew themselves when they expire, as botocore's do."""

    def get_frozen_credentials(self) -> Keys:
        """Return the keys that are valid now. Raises what botocore raises where they cannot be renewed."""


class Response(NamedTuple):
    """An answer of any kind, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ResponseBody(Protocol):
    """The body of an answer, read from the network as it is needed."""

    @property
    def length(self) -> int | None:
        """The announced length in bytes, None if there is none."""

    def read(self, size: int, /) -> bytes:
        """
        Return the next *size* bytes, fewer only at the end.

        Raises `OSError` and `http.client.HTTPException` where the body ends early or stalls; then only `close` is left.
        """

    def read_into(self, buffer: memoryview, /) -> int:
        """Fill *buffer* with the next bytes, fewer only at the end; return their number. Raises as `read` does."""

    def close(self) -> None:
        """Close the connection if the body was not read to its end. May be called again."""


class RangeAnswer(NamedTuple):
    """
    The answer to a request for a range.

    *content_range* and *etag* are those headers as the server sends them, "" if there is none. Without a
    *content_range* the server has not sent a range, and *body* may be closed.
    """

    content_range: str
    etag: str
    body: ResponseBody


class NewObject(NamedTuple):
    """A short object to store. *content_md5* is the MD5 of *data* in hex, to send as Content-MD5, "" to send none."""

    key: str
    data: bytes
    content_md5: str


class Request(Protocol):
    """A request of `DirectPath.to_get` or `DirectPath.to_put`, signed and not sent yet."""

    @property
    def data(self) -> bytes:
        """The bytes to send."""


class NewPart(NamedTuple):
    """A part to send to the *upload* with this id. *sha256* is that of *data*, computed once for all its uses."""

    upload: str
    number: int
    """Counted from 1."""
    data: Buffer
    sha256: bytes
    content_md5: str = ""
    """The MD5 of *data* in hex, to send as Content-MD5."""
    checksum: bool = False
    """Send ``x-amz-checksum-sha256``."""


class Fallback(Exception):
    """
    A request on the direct path did not end in an ordinary answer. boto3 continues it.

    *outcome* is the answer or the failure that boto3 takes as the result of its first attempt; nothing is sent twice.
    It is None where boto3 should send the request as if it had not been sent. *keys* signed the request;
    they are None where nothing was sent.
    """

    def __init__(self, outcome: Response | Exception | None, *, keys: Keys | None, blames_path: bool) -> None:
        super().__init__()
        self.outcome = outcome
        self.keys = keys
        self.blames_path = blames_path
        """If boto3 succeeds now, the direct path was at fault."""


class DirectPath(Protocol):
    """
    Requests for the keys below one prefix of a bucket. Safe to share between threads.

    `exchange` sends many requests, `to_get` and `to_put` none. Each other method sends one; it raises `Fallback`, what
    the credentials raise when they cannot be renewed, and `AnswerTooLong` and `CarriedError` of `http.errors`.
    """

    def size(self, key: str) -> int | None:
        """Return the length in bytes of the object under *key*, None if the answer to a HEAD is 404."""

    def get(self, key: str) -> tuple[io.BytesIO | ResponseBody, str]:
        """
        Return the object under *key*, in memory if it is short, and its ETag as the server sends it, "" for none.

        Raises also `OSError` and `http.client.HTTPException` where the body of a short object ends early or stalls.
        """

    def get_range(self, key: str, headers: Mapping[str, str]) -> RangeAnswer:
        """Return the range of the object under *key* that *headers* name: those of `RANGE_HEADERS`."""

    def put(self, key: str, data: bytes, content_md5: str = "", *, checksum: bool = False) -> str:
        """
        Store *data* under *key*, and return the ETag as the server sends it, "" if there is none.

        *checksum*: send ``x-amz-checksum-sha256``. *content_md5*: the MD5 of *data* in hex, to send as Content-MD5.
        """

    def to_get(self, key: str, then: Callable[[bytes], object]) -> Request:
        """Return the request for the short object under *key*; *then* is called with its bytes."""

    def to_put(self, new: NewObject, then: Callable[[str], object], *, checksum: bool) -> Request:
        """
        Return the request that stores *new*; *then* is called with its ETag as the server sends it, "" for none.

        *checksum*: send ``x-amz-checksum-sha256``.
        """

    def exchange(self, requests: Iterable[Request], most: int) -> Generator[object]:
        """
        Send *requests*, at most *most* at once, and yield what their *then* returns, as the answers arrive.

        They may be those of several paths. A request that *then* returns is sent in the place of the one before. None
        is not yielded: it stands for a failure. Nor is anything for a request that failed, that did not end in an
        ordinary answer with a short body, or that was not sent after others had failed: send it by itself.

        Close the generator if it is not read to its end. Raises `CarriedError`, what a checkpoint raises, what *then*
        raises, and what the credentials raise when they cannot be renewed.
        """

    def put_part(self, key: str, part: NewPart) -> str:
        """Send *part* of an upload to *key*, and return its ETag as the server sends it."""

    def copy(self, key: str, headers: Mapping[str, str]) -> str:
        """
        Let the server copy to *key* what *headers* name; return the copy's ETag as the server sends it.

        The names are those of `COPY_HEADERS`.
        """

    def page(self, parameters: Mapping[str, str]) -> Page:
        """Return a page of ListObjectsV2. *parameters* have boto3's names."""


class DirectPaths(Protocol):
    """The direct paths of one client. Safe to share between threads, not with a forked child."""

    def path_to(self, bucket: str, prefix: str) -> DirectPath | None:
        """Return the path to the keys below *prefix*, None where only boto3 can send the requests. Never raises."""

    def record_failure(self, bucket: str, prefix: str) -> None:
        """Note that boto3 succeeded where the path failed. After a few times in a row the path is not used again."""

    def record_success(self, bucket: str, prefix: str) -> None:
        """Note that the path works."""

    def close(self) -> None:
        """Close idle connections. New ones may be made afterwards."""
