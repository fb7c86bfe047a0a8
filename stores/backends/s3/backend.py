"""
A store in a bucket of Amazon S3, or of anything that speaks its protocol.

*whole or not at all*: S3 shows an object only when all of it has arrived, by
one PutObject or by the completion of a multipart upload.
*one map*: every error of boto3 becomes one of `snapferry.stores.errors`, in `errors`
and nowhere else.
*read to the end*: a body that stops before its announced length is an error,
so a connection that was cut never looks like a short object.

What is done for every object, and listings, go by `client`, in one attempt;
whatever does not end well there goes on in boto3 as its first attempt. So calls
are retried inside boto3 alone, 5 attempts in all. What is raised as transient
has been tried that often; a body that breaks off while it is read has not.
"""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from botocore import exceptions as boto

from snapferry.stores.base import Backend, Capabilities, Listed, OpenReader, Upload
from snapferry.stores.diagnosis.findings import Finding
from snapferry.stores.errors import (
    AccessDenied,
    InvalidStoreURL,
    KeyMissing,
    StoreError,
    StoreFault,
    StoreNotFound,
    StoreUnavailable,
)
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, Reach
from snapferry.stores.rate_limiter import PREPAID_BYTES, MarkedPace, Pace, PacedReader, settle
from snapferry.stores.requests import GET, HEAD, LIST, PUT, Requests
from snapferry.stores.runtime.containment import is_unexpected, unexpected
from snapferry.stores.runtime.interruption import SLICE_S, checkpoint, interruptible_too, is_owners
from snapferry.stores.runtime.oversize import far_beyond

from .client.clients import CONCURRENCY, DEFAULT, EXPECT_BYTES, Client, client_for
from .confirm import Conduct, Tally, etag_of, file, sha256_base64
from .direct.client import Direct, Unusual
from .direct.http1 import Body
from .direct.listing import page_of
from .direct.sigv4 import Keys
from .errors import CAUGHT, Doubt, Kind, credentials_doubted, dislikes_checksums, one_line, translated
from .http.attempts import SentCounter, already_made
from .http.bounded_body import BoundedBody
from .http.sockets import Passing
from .leftovers import abort_uploads
from .listing_check import Asked
from .multipart import S3Upload, requests_to_upload
from .options import Settings, settings_of
from .ranges import RANGE_BYTES, RANGED_ABOVE_BYTES, open_ranges, requests_to_download

if TYPE_CHECKING:
    from snapferry.stores.urls import StoreURL

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

CHECK_TIMEOUT_S: Final = 8
# For what gives the credentials: a program, a login, a service. Nothing is asked of the store meanwhile.
CREDENTIALS_TIMEOUT_S: Final = 60
# How often new credentials are looked up for one call; a file that is rewritten in place can be read half.
MAX_RENEWALS: Final = 4
# How long new credentials are waited for.
_PATIENCE_S: Final = {Doubt.SLIGHT: 0.0, Doubt.WRONG: 1.0, Doubt.EXPIRED: 5.0}
ABORT_OPERATION: Final = "abort_multipart_upload"


def open_s3(url: StoreURL, reach: Reach = ANYWHERE_BUT_LINK_LOCAL) -> S3Backend:
    """
    Return the backend for an ``s3://`` URL, whose connections go where *reach* allows.

    Sends nothing, and looks for no credentials yet.
    """
    return S3Backend(
        url.location,
        url.prefix,
        endpoint=url.option("endpoint_url"),
        region=url.option("region"),
        profile=url.option("profile"),
        settings=settings_of(dict(url.options)),
        read_back=url.option("read_back") != "false",
        reach=reach,
    )


class S3Backend(Backend):
    """
    Bytes under keys below *prefix* in *bucket*; the prefix is in no key given or returned.

    Memory: `write` sends what it is given, an upload holds up to 3 parts (see
    `part_sizes`), reading holds what is asked for.
    """

    # Measured: 16 and 32 calls in flight are alike on a near store, limited by the processor. 30 ms away 32 do
    # nearly twice as much as 16, and 64 no more than 32.
    capabilities = Capabilities(concurrency=CONCURRENCY, pages_listings=True)

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        settings: Settings = DEFAULT,
        read_back: bool = True,
        reach: Reach = ANYWHERE_BUT_LINK_LOCAL,
    ) -> None:
        place = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self.label = f"{place} at {endpoint}" if endpoint else place
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._settings = (profile, region, endpoint, settings, reach)
        self.reads_back = read_back
        self.tally = Tally()
        self._refused = _Refused()
        self._sent = SentCounter()
        self._pace: Pace | None = None
        self._bucket_seen = False

    def check(self, *, for_writing: bool) -> None:
        # No timeout of boto3 bounds a program that gives credentials, the resolving of names, or a name with many
        # silent addresses.
        self._within(
            CREDENTIALS_TIMEOUT_S,
            self._find_credentials,
            f"the credentials were not there after {CREDENTIALS_TIMEOUT_S} s; nothing was asked of the store:"
            " see the profile's credential_process, its SSO login, or the metadata service",
        )
        self._within(CHECK_TIMEOUT_S, self._check, f"did not answer within {CHECK_TIMEOUT_S} s")

    def _within(self, timeout_s: float, ask: Callable[[], None], too_late: str) -> None:
        """Run *ask* in a thread of its own; raise what it raises, and `StoreUnavailable` if it takes longer."""
        answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        answered = threading.Event()
        given_up = threading.Event()

        def wanted() -> None:
            if given_up.is_set():
                raise StoreUnavailable(self.label, "", too_late)

        def answer() -> None:
            try:
                with interruptible_too(wanted):
                    ask()
            except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
                answers.put(error)
            else:
                answers.put(None)
            answered.set()

        threading.Thread(target=copy_context().run, args=(answer,), name="s3-check", daemon=True).start()
        until = time.monotonic() + timeout_s
        try:
            while answers.empty():
                checkpoint()
                left = until - time.monotonic()
                if left <= 0:
                    raise StoreUnavailable(self.label, "", too_late)
                answered.wait(min(SLICE_S, left))
        finally:
            given_up.set()
        error = answers.get()
        if error is not None:
            raise error

    def _find_credentials(self) -> None:
        with self._errors(""):
            credentials = self._in_process.credentials
            if credentials is not None:
                credentials.get_frozen_credentials()

    def _check(self) -> None:
        try:
            self._head_bucket()
        except (AccessDenied, StoreFault) as error:
            if not isinstance(error.__cause__, boto.ClientError):
                raise
            # The answer to a HEAD has no body and so no reason; that to a listing names it.
            with self._errors(""):
                self._call("list_objects_v2", Prefix=self._prefix, MaxKeys=1)

    def _head_bucket(self) -> None:
        with self._errors("", missing=StoreNotFound):
            self._call("head_bucket")
        self._bucket_seen = True

    def size(self, key: str) -> int | None:
        try:
            with self._errors(key, missing=KeyMissing):
                found = self._either(
                    HEAD,
                    lambda way: way.size(key),
                    lambda: _length(self._call("head_object", Key=self._prefix + key)),
                )
        except KeyMissing:
            found = None
        if found is None:
            self._see_bucket()
        return found

    def _see_bucket(self) -> None:
        """
        Make sure that a bodyless 404 speaks of the key: for a missing bucket it is the same.

        Asks only where neither this question nor a listing was answered yet, and then once.
        """
        if not self._bucket_seen:
            try:
                self._head_bucket()
            except AccessDenied:
                logger.debug("%s: may not be asked for the bucket itself", self.label)
            self._bucket_seen = True

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        if size_hint > RANGED_ABOVE_BYTES:
            return open_ranges(self, key, size_hint)
        pace = self._pace
        paid = self._pay_ahead(min(max(size_hint, 0), PREPAID_BYTES))
        try:
            with self._errors(key, missing=KeyMissing):
                body: Any = self._either(
                    GET,
                    lambda way: way.get(key),
                    lambda: self._get_by_boto(key, size_hint),
                )
        except Exception:
            self._give_back(paid)
            raise
        if isinstance(body, io.BytesIO):
            if pace is not None:
                settle(pace, paid, body.getbuffer().nbytes)
            return body
        reader = _BodyReader(self, key, body)
        try:
            self._confirm(key, reader.length, size_hint)
        except BaseException:
            reader.__exit__(None, None, None)
            raise
        return reader if pace is None else PacedReader(reader, pace, expected=size_hint, paid=paid)

    def _get_by_boto(self, key: str, size_hint: int) -> BoundedBody:
        answer = self._call("get_object", Key=self._prefix + key)
        return BoundedBody(answer["Body"], answer.get("ContentLength"), size_hint)

    def _confirm(self, key: str, length: int | None, size_hint: int) -> None:
        """Ask a second time for a *length* that is far beyond what was expected: two answers must agree."""
        if length is None or length <= far_beyond(size_hint):
            return
        second = self.size(key)
        if second != length:
            said = f"answers to GET and HEAD contradict each other: {length} and {second} bytes"
            raise StoreUnavailable(self.label, key, said)

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > CHUNK_BYTES:
            return None
        with self.open(key, size_hint=size_hint) as reader:
            data = reader.read(CHUNK_BYTES + 1)
        return data if len(data) <= CHUNK_BYTES else None

    def write(self, key: str, data: bytes) -> None:
        file(self, key, data)

    def put(self, key: str, data: bytes, md5: str = "") -> str:
        """
        Send *data*, and return the ETag of what was stored, without quotes; with Content-MD5 if *md5* is given.

        A server that does not take checksums is sent none from then on.
        """
        conduct = self.conduct
        checksum = conduct.checksums
        try:
            etag = self._put(key, data, md5, checksum=checksum)
        except StoreError as error:
            if not checksum or conduct.checksum_taken or not dislikes_checksums(error):
                raise
            try:
                etag = self._put(key, data, md5, checksum=False)
            except StoreError:
                raise error from error.__cause__
            conduct.checksums = False
            logger.info("%s: does not take checksums with what is written", self.label)
        else:
            conduct.checksum_taken = True
        return etag.strip('"').lower()

    def _put(self, key: str, data: bytes, md5: str, *, checksum: bool) -> str:
        with self._errors(key):
            if len(data) > EXPECT_BYTES or md5:
                return etag_of(self.put_by_boto(key, data, checksum=checksum, md5=md5))
            return self._either(
                PUT,
                lambda way: way.put(key, data, checksum=checksum),
                lambda: etag_of(self.put_by_boto(key, data, checksum=checksum)),
                body_bytes=len(data),
            )

    def put_by_boto(self, key: str, data: bytes, *, checksum: bool, md5: str = "") -> Any:
        """Send *data* by boto3, whose errors are raised, and return its answer."""
        more = {"ContentMD5": b64encode(bytes.fromhex(md5)).decode()} if md5 else {}
        if checksum:
            more["ChecksumSHA256"] = sha256_base64(data)
        return self._call("put_object", Key=self._prefix + key, Body=data, **more)

    @property
    def conduct(self) -> Conduct:
        """What this process has learnt of the server."""
        return self._in_process.conduct(self._bucket, self._prefix)

    @property
    def confirmed(self) -> dict[str, int]:
        return self.tally.counts()

    def upload(self, key: str, size_hint: int) -> Upload:
        return S3Upload(self, key, size_hint)

    def abort_unfinished(self, key: str, size_hint: int) -> None:
        abort_uploads(self, key, size_hint)

    def piece_bytes(self, size_hint: int) -> int:
        return RANGE_BYTES if size_hint > RANGED_ABOVE_BYTES else 0

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        asked = Asked(
            self.label, prefix, self._prefix + prefix, self._prefix + start_after if start_after else ""
        )
        request = asked.parameters
        while True:
            with self._errors(prefix):
                page = self._either(
                    LIST,
                    lambda way: way.page(request),
                    lambda: page_of(self._call("list_objects_v2", **request)),
                )
            self._bucket_seen = True
            for key, size, modified in asked.new_on(page):
                yield Listed(key[len(self._prefix) :], size, modified)
            if not page.goes_on:
                return

    def delete(self, key: str) -> None:
        try:
            with self._errors(key, missing=KeyMissing):
                self._call("delete_object", Key=self._prefix + key)
        except KeyMissing:
            return

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        from .diagnosis import probe_bucket

        return probe_bucket(self, spaces) if for_writing else iter(())

    def clock(self) -> tuple[float, float] | None:
        from .diagnosis import server_clock

        return server_clock(self)

    def keep_pace(self, pace: Pace) -> bool:
        # Ranges and parts that are still to come find it here.
        self._pace = self._sent.pace = MarkedPace(pace)
        return True

    def _pay_ahead(self, size_bytes: int) -> int:
        """Return when an answer of *size_bytes* may be asked for; how many bytes of it are paid for."""
        if self._pace is None or not size_bytes:
            return 0
        self._pace.bytes(size_bytes)
        return size_bytes

    def _give_back(self, size_bytes: int) -> None:
        if self._pace is not None and size_bytes:
            self._pace.give_back(size_bytes)

    def requests_to_read(self, size: int) -> Requests:
        return requests_to_download(size)

    def requests_to_write(self, size: int) -> Requests:
        return requests_to_upload(size)

    @property
    def requests_sent(self) -> Requests:
        return self._sent.sent()

    def _either(
        self,
        operation: str,
        direct: Callable[[Direct], _T],
        by_boto: Callable[[], _T],
        *,
        body_bytes: int = 0,
    ) -> _T:
        """
        Do one request by the direct way, or by boto3 where there is none or what came of it was not ordinary.

        boto3 goes on where the direct way ended. Either way what was sent is counted.
        """
        checkpoint()
        ways = self._in_process.ways
        place = self._bucket, self._prefix
        way = ways.to(*place)
        if way is None:
            return by_boto()
        self._sent.pay(body_bytes)
        used = self._keys_now()
        try:
            found = direct(way)
        except Unusual as unusual:
            outcome, misled = unusual.outcome, unusual.misled
            self._sent.add(operation)
        else:
            ways.went_well(*place)
            self._sent.add(operation)
            return found
        self._refused.keys = None if outcome is None else used
        try:
            with nullcontext() if outcome is None else already_made(outcome):
                found = by_boto()
        finally:
            self._refused.keys = None
        if misled:
            ways.misled(*place)
        return found

    def _call(self, operation: str, **parameters: object) -> Any:
        """
        Call the client's *operation* on the bucket; what that sends is counted. The answer is boto3's.

        Where the store refuses the credentials and there are new ones, it is called again with those.
        """
        for left in reversed(range(MAX_RENEWALS)):
            client = self._in_process
            keys = None
            try:
                keys, self._refused.keys = self._refused.keys or self._keys_now(), None
                return self._call_once(client.boto, operation, parameters)
            except (boto.ClientError, boto.NoCredentialsError) as error:
                doubt = credentials_doubted(error)
                if not left or doubt is Doubt.NONE or client.credentials is None:
                    raise
                if not client.credentials.renew(keys, wait_s=_PATIENCE_S[doubt]):
                    raise
                logger.info("%s: credentials were renewed", self.label)
        raise AssertionError

    def _keys_now(self) -> Keys | None:
        credentials = self._in_process.credentials
        try:
            return None if credentials is None else credentials.get_frozen_credentials()
        except boto.BotoCoreError:
            # Whatever needs them says so.
            return None

    def _call_once(self, client: Any, operation: str, parameters: Mapping[str, object]) -> Any:
        body: Any = parameters.get("Body", b"")
        # Who is told to stop while waiting tidies up, and must not be told so again.
        with self._sent.counting(len(body), at_pace=operation != ABORT_OPERATION):
            try:
                return getattr(client, operation)(Bucket=self._bucket, **parameters)
            except Passing as passing:
                stopped = passing.error
            # Outside of the handler: what it raises would keep boto3's frames alive, and their connections with them.
            raise stopped

    @property
    def _in_process(self) -> Client:
        try:
            return client_for(*self._settings)
        except ValueError as error:
            raise self._no_url(error) from error

    @property
    def _client(self) -> Any:
        return self._in_process.boto

    def _no_url(self, error: ValueError) -> StoreError:
        """Return the error for boto3's way to refuse an endpoint or a region that makes no URL."""
        return InvalidStoreURL(self.label, "", one_line(error))

    @contextmanager
    def _errors(self, key: str, *, missing: Kind = StoreFault) -> Iterator[None]:
        """Translate what boto3 raises inside. *missing* is what a 404 means that does not blame the bucket."""
        passed: Exception
        try:
            yield
            return
        except Passing as passing:
            passed = passing.error
        except Exception as error:
            if isinstance(error, StoreError) or is_owners(error):
                raise
            if isinstance(error, CAUGHT):
                raise translated(error, self.label, key, missing) from error
            if is_unexpected(error):
                raise unexpected(error, self.label, key) from error
            raise
        # Outside of the handler: see `_call`.
        if isinstance(passed, StoreError) or is_owners(passed):
            raise passed
        raise translated(passed, self.label, key, missing) from passed


def _length(answer: Any) -> int:
    length = int(answer["ContentLength"])
    if length < 0:
        raise ValueError(f"{length} is not the length of an object")
    return length


class _Refused(threading.local):
    """The credentials of the attempt that boto3 goes on from, of this thread."""

    keys: Keys | None = None


class _BodyReader:
    """An object on its way in. Left before its end, the connection is closed instead of used again."""

    def __init__(self, backend: S3Backend, key: str, body: Body | BoundedBody) -> None:
        self._backend = backend
        self._key = key
        self._body = body
        self.length = body.length

    def read(self, size: int, /) -> bytes:
        with self._backend._errors(self._key):
            chunk: bytes = self._body.read(size)
            # Only an empty read makes botocore compare what came with what was announced.
            while len(chunk) < size and (more := self._body.read(size - len(chunk))):
                chunk += more
            return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with suppress(*CAUGHT):
            self._body.close()
