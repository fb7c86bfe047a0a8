"""
One bucket at one server: how every request of this package is sent, counted and rate-limited, and what its errors mean.

*one table*: `Bucket.errors` turns every error of boto3 and of HTTP into one of `snapferry.stores.errors`.
*one retry loop*: boto3 retries, `client.clients.ATTEMPTS` attempts in all. A request of the direct path is the first of
these attempts; boto3 continues where it failed. A transient error has been retried that often. A body that breaks off
while it is read has not been retried.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from http.client import HTTPException
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

from botocore import exceptions as boto

from snapferry.stores.errors import AccessDenied, InvalidStoreURL, StoreError, StoreFault, StoreNotFound
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy
from snapferry.stores.rate_limiter import OwnedRateLimiter, RateLimiter
from snapferry.stores.requests import Requests
from snapferry.stores.runtime.containment import is_unexpected, unexpected
from snapferry.stores.runtime.interruption import checkpoint, is_owners

from .client.clients import DEFAULT, Client, client_for
from .direct_path import DirectPath, Fallback, Keys
from .errors import TRANSLATED, CredentialProblem, ErrorClass, credential_problem, one_line, translate
from .features import ConfirmationCounts, ServerFeatures
from .http.attempts import RequestCounter, first_attempt
from .http.errors import CarriedError
from .http.pace import Pace
from .options import Settings

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

# Look-ups of new credentials for one call. A file that is being rewritten in place can be read half.
MAX_RENEWALS: Final = 4
# Seconds to wait for new credentials.
RENEWAL_WAIT_S: Final = {
    CredentialProblem.POSSIBLE: 0.0,
    CredentialProblem.INVALID: 1.0,
    CredentialProblem.EXPIRED: 5.0,
}
_ABORT_OPERATION: Final = "abort_multipart_upload"


class Bucket:
    """
    The keys below *prefix* in the bucket *name*. Safe to share between threads.

    Sends nothing and looks up no credentials when it is made. *read_back*: objects may be read again to confirm them.
    *limiter* is None until one is set; the requests of `call` and `direct_or_boto` wait for it.
    """

    def __init__(
        self,
        name: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        settings: Settings = DEFAULT,
        read_back: bool = True,
        ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL,
    ) -> None:
        url = f"s3://{name}/{prefix}" if prefix else f"s3://{name}"
        self.label = f"{url} at {endpoint}" if endpoint else url
        """The URL without credentials, for messages."""
        self.name = name
        self.prefix = f"{prefix}/" if prefix else ""
        """The prefix with a slash at its end, or ""."""
        self.read_back = read_back
        self.confirmations = ConfirmationCounts()
        self._settings = (profile, region, endpoint, settings, ip_policy)
        self._process: _InProcess | None = None
        self._counter = RequestCounter()
        self._thread = _ThreadState()
        self._exists = False

    def shares_server(self, other: Bucket) -> bool:
        """Return whether *other* is at the same server, and reached with the same credentials."""
        return (
            self._settings[:3] == other._settings[:3]
            and self._settings[3].unsigned == other._settings[3].unsigned
            and self._settings[3].all_headers == other._settings[3].all_headers
        )

    def full_key(self, key: str) -> str:
        """Return *key* as the bucket has it, with the prefix."""
        return self.prefix + key

    def key_of(self, full_key: str) -> str:
        """Return *full_key* without the prefix, which it has."""
        return full_key[len(self.prefix) :]

    @property
    def client(self) -> Client:
        """The client of this process. Raises `InvalidStoreURL` where the endpoint or the region makes no URL."""
        return self._in_process().client

    @property
    def features(self) -> ServerFeatures:
        """What this process knows about the server. Raises as `client` does."""
        return self._in_process().features

    def _in_process(self) -> _InProcess:
        # Kept here, because a look-up by all the settings takes a measurable part of a request.
        pid = os.getpid()
        known = self._process
        if known is not None and known.pid == pid:
            return known
        try:
            client = client_for(*self._settings)
        except ValueError as error:
            raise InvalidStoreURL(self.label, "", one_line(error)) from error
        place = self.name, self.prefix
        found = self._process = _InProcess(
            pid, client, client.features(*place), client.pace(*place, self.label)
        )
        return found

    # The rate limiter.

    @property
    def limiter(self) -> RateLimiter | None:
        """The rate limiter of this bucket, None if there is none."""
        return self._counter.limiter

    def limit_rate(self, limiter: RateLimiter) -> None:
        """Send everything limited by *limiter* from now on, also the rest of downloads and uploads that have begun."""
        self._counter.limiter = OwnedRateLimiter(limiter)

    def prepay(self, size_bytes: int) -> int:
        """Wait until *size_bytes* bytes of an answer may be requested. Return how many bytes were granted."""
        limiter = self.limiter
        if limiter is None or not size_bytes:
            return 0
        limiter.acquire_bytes(size_bytes)
        return size_bytes

    def refund(self, size_bytes: int) -> None:
        """Return *size_bytes* granted bytes that were not received."""
        limiter = self.limiter
        if limiter is not None and size_bytes:
            limiter.refund_bytes(size_bytes)

    @property
    def requests_sent(self) -> Requests:
        """A copy of the counts of the requests sent so far, every attempt included."""
        return self._counter.sent()

    # Requests.

    def call(self, operation: str, **parameters: object) -> Any:
        """
        Call *operation* of boto3's client for this bucket, and return boto3's answer.

        Where the store refuses the credentials and there are new ones, the call is repeated with those. Raises what
        boto3 raises; use it inside `errors`.
        """
        for left in reversed(range(MAX_RENEWALS)):
            client = self.client
            keys = None
            try:
                keys, self._thread.refused = self._thread.refused or _keys_now(client), None
                return self._call_once(client.boto, operation, parameters)
            except (boto.ClientError, boto.NoCredentialsError) as error:
                problem = credential_problem(error)
                if not left or problem is CredentialProblem.NONE or client.credentials is None:
                    raise
                if not client.credentials.renew(keys, wait_s=RENEWAL_WAIT_S[problem]):
                    raise
                logger.info("%s: credentials were renewed", self.label)
        raise AssertionError

    def _call_once(self, client: Any, operation: str, parameters: Mapping[str, object]) -> Any:
        body: Any = parameters.get("Body", b"")
        # An abort runs after the rate limiter has raised "stop", and must not be stopped again.
        pace = self._in_process().pace
        with self._counter.counting(pace, len(body), rate_limited=operation != _ABORT_OPERATION):
            try:
                return getattr(client, operation)(Bucket=self.name, **parameters)
            except CarriedError as carried:
                error = carried.error
            # Outside of the handler: the context of the error would keep boto3's frames alive, and with them their
            # connections.
            raise error

    def direct_or_boto(
        self,
        operation: str,
        direct: Callable[[DirectPath], _T],
        by_boto: Callable[[], _T],
        *,
        body_bytes: int = 0,
    ) -> _T:
        """
        Send one request with *direct*; let *by_boto* continue it where there is no direct path or it did not succeed.

        *operation* is the name of the request for the counts, *body_bytes* the length of its body. Raises what *direct*
        and *by_boto* raise, except `Fallback`; use it inside `errors`.
        """
        checkpoint()
        _, client, _, pace = self._in_process()
        path = client.paths.path_to(self.name, self.prefix)
        if path is None:
            return by_boto()
        counter = self._counter
        if counter.limiter is not None:
            counter.wait(body_bytes)
        pace.wait()
        try:
            found = direct(path)
        except Fallback as fallback:
            outcome, keys, blames_path = fallback.outcome, fallback.keys, fallback.blames_path
        except (OSError, HTTPException):
            # The server has answered, and the body broke off.
            counter.add(operation)
            raise
        else:
            client.paths.record_success(self.name, self.prefix)
            pace.answered()
            counter.add(operation)
            return found
        if keys is None:
            # Nothing was sent, and boto3 waits for the rate limiter itself.
            self.refund(body_bytes)
        else:
            counter.add(operation)
        self._thread.refused = None if outcome is None else keys
        try:
            with nullcontext() if outcome is None else first_attempt(outcome):
                found = by_boto()
        finally:
            self._thread.refused = None
        if blames_path:
            client.paths.record_failure(self.name, self.prefix)
        return found

    @property
    def free_path(self) -> DirectPath | None:
        """The direct path; None while requests wait for a rate limiter, or because the server asks to slow down."""
        _, client, _, pace = self._in_process()
        if self.limiter is not None or pace.per_second is not None:
            return None
        return client.paths.path_to(self.name, self.prefix)

    def count_direct(self, operation: str, sent: int, succeeded: int) -> None:
        """Count requests that were *sent* by `free_path`, and how many of them *succeeded*."""
        self._counter.add(operation, sent)
        if succeeded:
            _, client, _, pace = self._in_process()
            client.paths.record_success(self.name, self.prefix)
            pace.answered(succeeded)

    def errors(self, key: str, *, missing: ErrorClass = StoreFault) -> _Errors:
        """
        Return a context manager that translates the errors of its block to `StoreError`.

        *missing* is the class for a 404 that does not name the bucket. What the owner of the work raises passes
        unchanged (`stores.runtime.interruption`).
        """
        return _Errors(self, key, missing)

    # Whether the bucket exists.

    def check_exists(self) -> None:
        """Send a HeadBucket. Raises `StoreNotFound` where the bucket does not exist, and other `StoreError`s."""
        with self.errors("", missing=StoreNotFound):
            self.call("head_bucket")
        self._exists = True

    def no_bucket(self, error: StoreError) -> StoreError:
        """Return the error that the bucket does not exist; *error* has the answer of the server as its detail."""
        # The label has an endpoint only if the URL has.
        named_endpoint = self._settings[2]
        place = "" if named_endpoint else f" at {self.client.boto.meta.endpoint_url}"
        answer = error.detail.partition(":")[0]
        detail = f"there is no bucket {self.name}{place}; create it, or correct the URL ({answer})"
        # The key that was asked for says nothing about a bucket that is not there.
        return StoreNotFound(self.label, "", detail)

    def note_exists(self) -> None:
        """Note that the bucket exists: the server has listed it."""
        self._exists = True

    def ensure_exists(self) -> None:
        """
        Make sure that a 404 without a body means the key, not the bucket: the answers are the same.

        Sends a request only if neither this nor a listing has succeeded yet.
        """
        if not self._exists:
            try:
                self.check_exists()
            except AccessDenied:
                logger.debug("%s: no permission for HeadBucket", self.label)
            self._exists = True


class _InProcess(NamedTuple):
    """What a bucket uses in the process *pid*."""

    pid: int
    client: Client
    features: ServerFeatures
    pace: Pace


def _keys_now(client: Client) -> Keys | None:
    credentials = client.credentials
    try:
        return None if credentials is None else credentials.get_frozen_credentials()
    except boto.BotoCoreError:
        # The code that needs them raises it again.
        return None


class _ThreadState(threading.local):
    refused: Keys | None = None
    """The keys of the attempt from which boto3 continues."""


class _Errors:
    """See `Bucket.errors`. A class, because a generator takes twice as long, and this runs for every request."""

    __slots__ = ("_bucket", "_key", "_missing")

    def __init__(self, bucket: Bucket, key: str, missing: ErrorClass) -> None:
        self._bucket = bucket
        self._key = key
        self._missing = missing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is None:
            return
        if isinstance(error, CarriedError):
            self._raise_carried(error.error)
        if not isinstance(error, Exception) or isinstance(error, StoreError) or is_owners(error):
            return
        if isinstance(error, TRANSLATED):
            raise self._translated(error) from error
        if is_unexpected(error):
            raise unexpected(error, self._bucket.label, self._key) from error

    def _translated(self, error: BaseException) -> StoreError:
        found = translate(error, self._bucket.label, self._key, self._missing)
        return self._bucket.no_bucket(found) if type(found) is StoreNotFound else found

    def _raise_carried(self, carried: Exception) -> None:
        failure = carried
        if not isinstance(carried, StoreError) and not is_owners(carried):
            failure = self._translated(carried)
            failure.__cause__ = carried
        context = failure.__context__
        try:
            raise failure
        finally:
            # Python has set it to the `CarriedError`, which keeps boto3's frames and their connections alive.
            failure.__context__ = context
