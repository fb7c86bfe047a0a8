"""
Find out whether a server copies objects by itself, and whether it copies only the version that it is asked for.

A server that does not know CopyObject takes the request for a PutObject without a body, and shows an empty object. So
a server is tried before, with a probe, whose key can never be an address.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of, may_reject_header, status_of
from snapferry.stores.backends.s3.features import CopyFeatures
from snapferry.stores.backends.s3.objects.copying import copy_whole, source_of
from snapferry.stores.backends.s3.objects.probes import NO_ETAG
from snapferry.stores.backends.s3.objects.small import delete, put, status
from snapferry.stores.diagnosis.round_trip import DATA, FOLDER, new_probe
from snapferry.stores.errors import AccessDenied, StoreError, StoreFault

logger = logging.getLogger(__name__)

# Seconds after a refusal before the server is asked to copy again: its configuration may have been changed.
ASK_AGAIN_S: Final = 900.0

# 404: there is no object. 409: another request is writing it. 412: it is another version. 416: it is shorter.
CHANGED: Final = {404, 409, 412, 416}

# An uploaded object has none of the user's metadata and tags, so a copy takes none along.
_METADATA: Final = {"MetadataDirective": "REPLACE"}
_TAGGING: Final = {"TaggingDirective": "REPLACE"}


def may_copy(bucket: Bucket, source: Bucket, key: str) -> bool:
    """
    Return whether the server may be asked to copy from *source* to *bucket*. Tries it near *key* once in each process.

    Raises `StoreError` where the try has failed for a reason that has nothing to do with copies.
    """
    copies = bucket.features.copies
    with copies.lock:
        if copies.enforces_etag is None and not _refused(copies, source):
            try:
                copies.enforces_etag = _try(bucket, new_probe(f"{key.partition('/')[0]}/{FOLDER}"))
                how = (
                    "only the version that is asked for"
                    if copies.enforces_etag
                    else "whatever version there is"
                )
                logger.info("%s: the server copies objects, %s", bucket.label, how)
            except StoreError as error:
                if not is_refusal(error):
                    raise
                note_refusal(bucket, source, error)
    return not _refused(copies, source)


def note_refusal(bucket: Bucket, source: Bucket, error: StoreError) -> None:
    """Note that the server does not copy from *source* to *bucket*, for the reason in *error*."""
    copies = bucket.features.copies
    if not _refused(copies, source):
        copies.refused_until[source.name] = time.monotonic() + ASK_AGAIN_S
        logger.warning(
            "the server does not copy objects from %s to %s, this process does: %s",
            source.label, bucket.label, error.detail,
        )  # fmt: skip


def is_refusal(error: StoreError) -> bool:
    """Return whether *error* means that the server does not copy, and not that this object or this moment is wrong."""
    if isinstance(error, AccessDenied):
        # Credentials that have expired refuse everything, not only copies.
        return code_of(error) == "AccessDenied" or may_reject_header(error)
    answered = status_of(error)
    return isinstance(error, StoreFault) and (
        not error.__cause__ or (answered >= 400 and answered not in CHANGED)
    )


def directives(copies: CopyFeatures) -> dict[str, str]:
    """Return boto3's parameters with which a copy is stored as an upload is."""
    return _METADATA | _TAGGING if copies.tagging else _METADATA


def _refused(copies: CopyFeatures, source: Bucket) -> bool:
    return time.monotonic() < copies.refused_until.get(source.name, 0.0)


def _try(bucket: Bucket, probe: str) -> bool:
    """Return whether the server copies only the version that is asked for. Raises `StoreError` where it copies none."""
    copy = f"{probe}-copy"
    try:
        put(bucket, probe, DATA)
        written = status(bucket, probe)
        if written is None or not written.etag or written.etag.startswith("W/"):
            raise StoreFault(
                bucket.label, probe, "the server gives objects no ETag by which a copy can be pinned"
            )
        try:
            _copy(bucket, probe, copy, written.etag)
        except StoreError as error:
            if not may_reject_header(error):
                raise
            bucket.features.copies.tagging = False
            _copy(bucket, probe, copy, written.etag)
        copied = status(bucket, copy)
        if copied is None or copied.length != len(DATA):
            raise StoreFault(bucket.label, probe, "the server did not copy the bytes of a probe")
        try:
            _copy(bucket, probe, copy, NO_ETAG)
        except StoreError as error:
            if status_of(error) != 412:
                raise
            return True
        return False
    finally:
        for key in (probe, copy):
            with suppress(StoreError):
                delete(bucket, key)


def _copy(bucket: Bucket, probe: str, copy: str, etag: str) -> None:
    copy_whole(bucket, copy, source_of(bucket, probe, etag), **directives(bucket.features.copies))
