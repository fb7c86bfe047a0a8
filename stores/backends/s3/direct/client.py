"""
The direct way to objects and listings: requests sent without boto3 in between.

For small objects boto3's own work on a request is most of what a copy costs.

*boto3 decides*: where a bucket is, how it is addressed, who signs, is what boto3
says in a request that it prepares and does not send. This way is taken only if
a signature made here for that very request is boto3's own, to the letter.
*ordinary answers only*: any other, and every failure, is handed to boto3 as the
outcome of its first attempt (`Unusual`). What it means, and whether it is worth
another attempt, is boto3's to say; nothing is sent twice for it.
"""

from __future__ import annotations

import io
import logging
import re
import ssl
import threading
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from botocore import exceptions as boto

from snapferry.stores.backends.s3.http.attempts import rehearse
from snapferry.stores.backends.s3.http.bounded_body import announced_too_long
from snapferry.stores.backends.s3.http.sockets import AnswerTooLong
from snapferry.stores.backends.s3.multipart import MAX_OBJECT_BYTES

from .http1 import Body, Full, Head, NotConnected, Wire
from .listing import NotAPage, Page, read_page
from .sigv4 import ALGORITHM, CHECKSUM, EMPTY_SHA256, Credentials, Signer

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

logger = logging.getLogger(__name__)

# So often in a row boto3 must have succeeded where this way did not, until it is no longer taken.
MAX_MISLED: Final = 3

# What every request says, and what this way says in its own words. Anything else has a purpose unknown here.
_KNOWN_HEADERS: Final = {
    "authorization", "user-agent", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token",
    "amz-sdk-invocation-id", "amz-sdk-request", "content-length", CHECKSUM,
}  # fmt: skip
# What the settings of a store add, to each request of a kind alike.
_SETTINGS: Final = {
    "x-amz-acl", "x-amz-request-payer", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-storage-class", "x-amz-tagging",
}  # fmt: skip
_authorization = re.compile(
    rf"{ALGORITHM} Credential=[^/]+/[0-9]{{8}}/([^/]+)/s3/aws4_request, SignedHeaders=[^ ]+, Signature=[0-9a-f]+"
)
# Keys that are the same in a URL, as all that `snapferry.stores.address` makes.
_plain_key = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*").fullmatch

# Success that is not understood here, another place, a request that is not liked.
_MISLEADING: Final = {200, 301, 302, 303, 307, 308, 400, 401, 403, 405, 411, 501}

_ETAG: Final = b"\r\netag:"
# What a body of a rehearsal is.
_REHEARSED: Final = b"k"

_T = TypeVar("_T")


class Unusual(Exception):
    """
    A request that did not end in an ordinary answer.

    *outcome* is for `attempts.already_made`. None where the request may be sent
    again by boto3 as if it had not been.
    """

    def __init__(self, outcome: Full | Exception | None) -> None:
        super().__init__()
        self.outcome = outcome

    @property
    def misled(self) -> bool:
        """Say whether it is this way's fault if boto3 succeeds where it did not."""
        outcome = self.outcome
        if isinstance(outcome, boto.SSLError):
            # A handshake that is cut is the server's affair, one that is refused may be ours.
            return not isinstance(outcome.kwargs.get("error"), ssl.SSLEOFError)
        return outcome is None or (isinstance(outcome, Full) and outcome.status in _MISLEADING)


class _Renewed(Exception):
    """Credentials changed while signatures were compared."""


class Form(NamedTuple):
    """How requests of one kind look: *path* is the URL's up to the key, *agent* the User-Agent."""

    address: tuple[str, int]
    tls: bool
    path: str
    agent: str
    signer: Signer


class Ways:
    """
    The direct ways of one client of boto3 to the places that it is used for.

    *dial* makes the connections to an address. With *checksums*, those of bodies
    go along. Safe to share between threads, not with a forked child.
    """

    def __init__(
        self,
        client: Any,
        credentials: Credentials | None,
        dial: Callable[[tuple[str, int], bool], Wire],
        *,
        checksums: bool = True,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._dial = dial
        self._checksums = checksums
        self._wires: dict[tuple[tuple[str, int], bool], Wire] = {}
        self._ways: dict[tuple[str, str], Direct | None] = {}
        self._misled: dict[tuple[str, str], int] = {}
        self._looking = threading.Lock()

    def to(self, bucket: str, prefix: str) -> Direct | None:
        """Return the way to the keys below *prefix* in *bucket*, None where only boto3 can go. Never raises."""
        place = bucket, prefix
        if place not in self._ways:
            with self._looking:
                if place not in self._ways:
                    try:
                        self._ways[place] = self._look_for(bucket, prefix)
                    except Exception as error:  # noqa: BLE001 - boto3 raises it again, where it has a meaning
                        logger.debug("%s: no direct way: %s", bucket, type(error).__name__)
        return self._ways.get(place)

    def _look_for(self, bucket: str, prefix: str) -> Direct | None:
        if self._misled.get((bucket, prefix), 0) >= MAX_MISLED:
            logger.info("%s: the direct way leads nowhere; boto3 does all from here on", bucket)
            return None
        if self._credentials is None or not _is_direct(self._client):
            return None
        keys = self._credentials.get_frozen_credentials()
        request = rehearse(self._client.head_object, Bucket=bucket, Key=f"{prefix}k")
        objects = read_form(request, self._credentials)
        request = rehearse(self._client.list_objects_v2, Bucket=bucket, Prefix="k")
        listing = read_form(request, self._credentials)
        written = self._form_of_writes(bucket, prefix)
        if objects and listing and written:
            return Direct(objects, written, listing, self._wire)
        if self._credentials.get_frozen_credentials() != keys:
            # boto3 and this may have signed with different ones. It counts, for they may change each time.
            self.misled(bucket, prefix)
            raise _Renewed
        return None

    def _form_of_writes(self, bucket: str, prefix: str) -> Form | None:
        assert self._credentials is not None
        checksums: tuple[str, ...] = (_base64(sha256(_REHEARSED)), "") if self._checksums else ("",)
        forms = []
        for checksum in checksums:
            more = {"ChecksumSHA256": checksum} if checksum else {}
            request = rehearse(
                self._client.put_object, Bucket=bucket, Key=f"{prefix}k", Body=_REHEARSED, **more
            )
            forms.append(read_form(request, self._credentials, _REHEARSED))
        return forms[0] if all(forms) else None

    def misled(self, bucket: str, prefix: str) -> None:
        """Note that boto3 got through where the direct way did not: look for another one, a few times."""
        place = bucket, prefix
        self._misled[place] = self._misled.get(place, 0) + 1
        self._ways.pop(place, None)

    def went_well(self, bucket: str, prefix: str) -> None:
        """Note that the direct way leads there."""
        if self._misled:
            self._misled.pop((bucket, prefix), None)

    def close(self) -> None:
        """Close the connections that nobody uses. More can be made afterwards."""
        for wire in self._wires.values():
            wire.close()

    def _wire(self, form: Form) -> Wire:
        key = form.address, form.tls
        if key not in self._wires:
            self._wires.setdefault(key, self._dial(*key))
        return self._wires[key]


def _is_direct(client: Any) -> bool:
    """Say whether *client* connects to the server itself: no proxy, no certificate of ours, theirs verified."""
    http = getattr(getattr(client, "_endpoint", None), "http_session", None)
    proxies, own_certificate = getattr(http, "_proxy_config", None), getattr(http, "_cert_file", "unknown")
    if proxies is None or own_certificate is not None or authorities(client) is None:
        return False
    return not proxies.proxy_url_for(client.meta.endpoint_url)


def authorities(client: Any) -> str | bool | None:
    """Return the file of certificates that *client* trusts, True for the usual ones, None for anything else."""
    found = getattr(getattr(getattr(client, "_endpoint", None), "http_session", None), "_verify", None)
    return found if found is True or isinstance(found, str) else None


def read_form(request: Any, credentials: Credentials, body: bytes = b"") -> Form | None:
    """Return the form of *request*, one that boto3 has signed; None if it is not understood to the letter."""
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    url = urlsplit(request.url)
    signed = _authorization.fullmatch(headers.get("authorization", ""))
    if signed is None or not headers.keys() <= _KNOWN_HEADERS | _SETTINGS or not url.hostname:
        return None
    tls = url.scheme == "https"
    usual = 443 if tls else 80
    port = url.port or usual
    shown = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    host = shown if port == usual else f"{shown}:{port}"
    signer = Signer(
        credentials, signed[1], host, [(name, headers[name]) for name in headers.keys() & _SETTINGS]
    )
    query = "&".join(sorted(url.query.split("&")))
    stamp, checksum = headers.get("x-amz-date", ""), headers.get(CHECKSUM, "")
    ours = signer.headers(request.method, url.path, query, sha256(body).hexdigest(), stamp, checksum)
    if f"\r\nAuthorization: {headers['authorization']}\r\n" not in ours:
        return None
    return Form((url.hostname, port), tls, url.path, headers.get("user-agent", ""), signer)


class Direct:
    """
    The direct way to the keys below a prefix. Safe to share between threads.

    Every method sends one request and raises `Unusual` where its answer is not
    an ordinary one, and what credentials raise that cannot be renewed.
    """

    def __init__(self, objects: Form, written: Form, listing: Form, wire: Callable[[Form], Wire]) -> None:
        # The key of the rehearsal is one letter.
        self._objects = objects._replace(path=objects.path[:-1])
        self._written = written._replace(path=written.path[:-1])
        self._listing = listing
        self._object_wire = wire(objects)
        self._listing_wire = wire(listing)

    def size(self, key: str) -> int | None:
        """Return the length of what is filed under *key*, None if the answer to a HEAD is 404."""
        head = self._ask("HEAD", key)
        Body(self._object_wire, head._replace(length=0)).close()
        return head.length if head.status == 200 else None

    def get(self, key: str) -> io.BytesIO | Body:
        """Return what is filed under *key*, in memory where it is small."""
        head = self._ask("GET", key)
        if head.length > MAX_OBJECT_BYTES:
            head.connection.close()
            raise AnswerTooLong(announced_too_long(head.length))
        body = Body(self._object_wire, head)
        return io.BytesIO(head.came) if len(head.came) == head.length else body

    def put(self, key: str, data: bytes, *, checksum: bool = False) -> str:
        """File *data* under *key*, with its checksum if that is wanted. Return the ETag, "" where there is none."""
        form = self._written
        digest = sha256(data)
        head = self._head(
            form, "PUT", self._path(form, key), "", digest.hexdigest(), _base64(digest) if checksum else ""
        )
        request = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        answer = self._outcome(form, lambda: self._object_wire.ask(request))
        if not isinstance(answer, Head):
            raise Unusual(answer)
        if not answer.length:
            Body(self._object_wire, answer)
            return _etag(answer.lines)
        # Success is said without words. Where there are some, boto3 looks whether they are an error's.
        said = self._outcome(form, lambda: self._object_wire.rest_of(answer))
        if b"<Error" in said.body:
            raise Unusual(said)
        return _etag(answer.lines)

    def page(self, parameters: Mapping[str, str]) -> Page:
        """Return a page of the listing that *parameters* ask for, in the words of boto3."""
        form = self._listing
        asked = {"list-type": "2", "encoding-type": "url"}
        asked |= {_PARAMETERS[name]: value for name, value in parameters.items()}
        query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(asked.items()))
        request = self._head(form, "GET", form.path, query, EMPTY_SHA256) + "\r\n"
        answer = self._outcome(form, lambda: self._listing_wire.ask_for_all(request.encode()))
        if answer.status != 200:
            raise Unusual(answer)
        try:
            return read_page(answer.body)
        except NotAPage as error:
            raise Unusual(answer) from error

    def _ask(self, method: str, key: str) -> Head:
        form = self._objects
        request = f"{self._head(form, method, self._path(form, key), '', EMPTY_SHA256)}\r\n".encode()
        answer = self._outcome(
            form, lambda: self._object_wire.ask(request, bodyless=method == "HEAD", streamed=method == "GET")
        )
        if isinstance(answer, Head):
            return answer
        # An object that does not say how long it is may be of any length; boto3 streams it.
        raise Unusual(None if method == "GET" and answer.status < 300 else answer)

    @staticmethod
    def _path(form: Form, key: str) -> str:
        return form.path + (key if _plain_key(key) else quote(key, safe="/~"))

    @staticmethod
    def _head(form: Form, method: str, path: str, query: str, body_sha256: str, checksum: str = "") -> str:
        signed = form.signer.headers(method, path, query, body_sha256, checksum=checksum)
        target = f"{path}?{query}" if query else path
        return f"{method} {target} HTTP/1.1\r\n{signed}User-Agent: {form.agent}\r\n"

    def _outcome(self, form: Form, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except NotConnected as error:
            raise Unusual(self._failed(form, error.__cause__ or error, connected=False)) from error
        except (HTTPException, OSError) as error:
            raise Unusual(self._failed(form, error)) from error

    @staticmethod
    def _failed(form: Form, error: BaseException, *, connected: bool = True) -> Exception:
        """Return what boto3 raises of its own in place of *error*."""
        scheme = "https" if form.tls else "http"
        kind = boto.ConnectionClosedError if connected else boto.EndpointConnectionError
        if isinstance(error, TimeoutError):
            kind = boto.ReadTimeoutError if connected else boto.ConnectTimeoutError
        elif isinstance(error, ssl.SSLError):
            kind = boto.SSLError
        failed: Exception = kind(
            endpoint_url=f"{scheme}://{form.address[0]}:{form.address[1]}{form.path}", error=error
        )
        return failed


def _base64(digest: HASH) -> str:
    return b2a_base64(digest.digest(), newline=False).decode()


def _etag(lines: bytes) -> str:
    at = lines.find(_ETAG)
    return lines[at + len(_ETAG) : lines.find(b"\r\n", at + 2)].decode("latin-1").strip() if at >= 0 else ""


_PARAMETERS: Final = {
    "Prefix": "prefix",
    "StartAfter": "start-after",
    "ContinuationToken": "continuation-token",
}
