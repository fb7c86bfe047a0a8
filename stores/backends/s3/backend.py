"""
A store in a bucket of Amazon S3, or of another server with its protocol.

*whole or not at all*: S3 shows an object only when all of it has arrived, by one PutObject or by the completion of a
multipart upload (user guide, "Amazon S3 data consistency model").

Errors and retries are described in `bucket`, what makes a write safe in `objects.confirm`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final

from botocore import exceptions as boto

from snapferry.stores.backend import Backend, Capabilities, Listed, SendsMany
from snapferry.stores.diagnosis.diagnosable import Diagnosable
from snapferry.stores.diagnosis.findings import Finding
from snapferry.stores.errors import AccessDenied, StoreFault, StoreUnavailable
from snapferry.stores.features import (
    Conditional,
    ConditionalDelete,
    Confirming,
    CopiesOnServer,
    IsRight,
    KeepsUnfinished,
    PartsShape,
    PartsUpload,
    PinnedObject,
    Priced,
    PricesCopies,
    Quarantining,
    ReadsRanges,
    Seen,
    ServerCopy,
    TakesParts,
    Throttled,
    feature_of,
)
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy
from snapferry.stores.rate_limiter import RateLimiter
from snapferry.stores.requests import Requests
from snapferry.stores.streams import OpenReader, Upload
from snapferry.stores.urls import StoreURL

from .bucket import Bucket
from .deadline import run_within
from .objects import in_parts
from .objects.confirm import write
from .objects.leftovers import abort_uploads
from .objects.many import copy_each, fetch_each, write_each, writes_each
from .objects.multipart import S3Upload
from .objects.quarantine import quarantine
from .objects.ranges import open_object
from .objects.server_side import server_copy
from .objects.small import delete, list_keys, size
from .objects.swap import delete_if, supports_conditional_delete, supports_conditions, write_if
from .options import settings_of
from .sizes import (
    CONCURRENCY,
    RANGE_BYTES,
    RANGED_ABOVE_BYTES,
    requests_to_copy,
    requests_to_download,
    requests_to_read_parts,
    requests_to_upload,
    requests_to_write_parts,
)

CHECK_TIMEOUT_S: Final = 8
# For the provider of the credentials: a program, a login, a service. Nothing is asked of the store meanwhile.
CREDENTIALS_TIMEOUT_S: Final = 60


def open_s3(url: StoreURL, ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL) -> S3Backend:
    """
    Return the backend for an ``s3://`` URL. Its connections go only where *ip_policy* allows.

    Sends nothing, and looks up no credentials yet.
    """
    return S3Backend(
        Bucket(
            url.location,
            url.prefix,
            endpoint=url.option("endpoint_url"),
            region=url.option("region"),
            profile=url.option("profile"),
            settings=settings_of(dict(url.options)),
            read_back=url.option("read_back") != "false",
            ip_policy=ip_policy,
        )
    )


class S3Backend(
    Backend,
    Conditional,
    ConditionalDelete,
    Diagnosable,
    Throttled,
    Priced,
    PricesCopies,
    Confirming,
    CopiesOnServer,
    KeepsUnfinished,
    Quarantining,
    ReadsRanges,
    TakesParts,
    SendsMany,
):
    """
    Bytes under the keys of *bucket*. Keys that are given and returned do not have its prefix.

    Memory: `write` sends the bytes it is given; an upload holds up to 3 parts (`sizes.part_sizes`); a reader holds the
    bytes that are requested of it, for a large object also its ranges in flight.
    """

    capabilities = Capabilities(
        concurrency=CONCURRENCY,
        pages_listings=True,
        piece_bytes=RANGE_BYTES,
        pieces_above_bytes=RANGED_ABOVE_BYTES,
    )

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.label = self.bucket.label

    def check(self, *, for_writing: bool) -> None:
        # No timeout of boto3 limits a program that provides credentials, the look-up of names, or a name with many
        # silent addresses.
        run_within(
            CREDENTIALS_TIMEOUT_S,
            self._find_credentials,
            lambda: StoreUnavailable(
                self.label,
                "",
                f"no credentials after {CREDENTIALS_TIMEOUT_S} s; no request was sent to the store:"
                " check the profile's credential_process, its SSO login, or the metadata service",
            ),
        )
        run_within(
            CHECK_TIMEOUT_S,
            self._check,
            lambda: StoreUnavailable(self.label, "", f"did not answer within {CHECK_TIMEOUT_S} s"),
        )

    def _find_credentials(self) -> None:
        with self.bucket.errors(""):
            credentials = self.bucket.client.credentials
            if credentials is not None:
                credentials.get_frozen_credentials()

    def _check(self) -> None:
        try:
            self.bucket.check_exists()
        except (AccessDenied, StoreFault) as error:
            if not isinstance(error.__cause__, boto.ClientError):
                raise
            # The answer to a HEAD has no body, so it gives no reason. The answer to a listing does.
            with self.bucket.errors(""):
                self.bucket.call("list_objects_v2", Prefix=self.bucket.prefix, MaxKeys=1)

    def size(self, key: str) -> int | None:
        return size(self.bucket, key)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        return open_object(self.bucket, key, size_hint)

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > CHUNK_BYTES:
            return None
        with self.open(key, size_hint=size_hint) as reader:
            data = reader.read(CHUNK_BYTES + 1)
        return data if len(data) <= CHUNK_BYTES else None

    def write(self, key: str, data: bytes) -> None:
        write(self.bucket, key, data)

    def fetch_each(self, keys: Iterable[str], most: int) -> Generator[tuple[int, bytes]]:
        return fetch_each(self.bucket, keys, most)

    def writes_each(self) -> bool:
        return writes_each(self.bucket)

    def write_each(self, objects: Iterable[tuple[str, bytes]], most: int) -> Generator[tuple[int, int]]:
        return write_each(self.bucket, objects, most)

    def copy_each(
        self, source: SendsMany, keys: Iterable[str], is_right: Callable[[int, bytes], bool], most: int
    ) -> Generator[tuple[int, int]] | None:
        if not isinstance(source, S3Backend):
            return None
        return copy_each(source.bucket, self.bucket, keys, is_right, most)

    def upload(self, key: str, size_hint: int) -> Upload:
        return S3Upload(self.bucket, key, size_hint)

    def server_copy(self, source: Backend, key: str, size_hint: int) -> ServerCopy | None:
        other = feature_of(source, CopiesOnServer)
        if not isinstance(other, S3Backend):
            return None
        return server_copy(self.bucket, other.bucket, key, size_hint)

    def abort_unfinished(self, key: str, size_hint: int, *, dead_only: bool = False) -> None:
        if not dead_only:
            abort_uploads(self.bucket, key, size_hint)

    def pin(self, key: str) -> PinnedObject | None:
        return in_parts.pin(self.bucket, key)

    def pinned(self, key: str, version: str, length: int) -> PinnedObject:
        return in_parts.pinned(self.bucket, key, version, length)

    def copies_whole(self, source: Backend, /) -> bool:
        return False

    def begin_parts(self, key: str, owner: str, shape: PartsShape, /) -> PartsUpload | None:
        return in_parts.begin_parts(self.bucket, key, owner, shape)

    def join_parts(self, key: str, owner: str, /) -> PartsUpload | None:
        return in_parts.join_parts(self.bucket, key, owner)

    def drop_parts(self, key: str, owner: str, /) -> bool:
        return in_parts.drop_parts(self.bucket, key, owner)

    def quarantine(self, key: str, is_right: IsRight) -> Seen:
        return quarantine(self.bucket, key, is_right)

    def supports_conditions(self, space: str) -> bool:
        return supports_conditions(self.bucket, space)

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        return write_if(self.bucket, key, data, expected)

    def supports_conditional_delete(self, space: str) -> bool:
        return supports_conditional_delete(self.bucket, space)

    def delete_if(self, key: str, expected: bytes) -> bool:
        return delete_if(self.bucket, key, expected)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        return list_keys(self.bucket, prefix, start_after)

    def delete(self, key: str) -> None:
        delete(self.bucket, key)

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        # Only the doctor asks. All other processes with an S3 store do without these modules.
        from .diagnosis.settings import diagnose

        return diagnose(self.bucket, spaces) if for_writing else iter(())

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        yield from ()

    def clock(self) -> tuple[float, float] | None:
        # As in `probe`.
        from .diagnosis.settings import server_clock

        return server_clock(self.bucket)

    def limit_rate(self, limiter: RateLimiter) -> None:
        self.bucket.limit_rate(limiter)

    def requests_to_read(self, size: int) -> Requests:
        return requests_to_download(size)

    def requests_to_write(self, size: int) -> Requests:
        return requests_to_upload(size)

    def requests_to_read_parts(self, parts: int) -> Requests:
        return requests_to_read_parts(parts)

    def requests_to_write_parts(self, parts: int) -> Requests:
        return requests_to_write_parts(parts)

    def requests_to_copy_on_server(self, size: int) -> Requests:
        return requests_to_copy(size)

    @property
    def confirmed(self) -> dict[str, int]:
        return self.bucket.confirmations.counts()

    @property
    def requests_sent(self) -> Requests:
        return self.bucket.requests_sent
