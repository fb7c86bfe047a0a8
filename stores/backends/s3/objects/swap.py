"""
Write or delete an object only if the key holds what the caller expects, in one step of the server.

Amazon S3 and some other servers support this by the headers If-Match and If-None-Match of PutObject, and If-Match of
DeleteObject (user guide, "Conditional requests"). Others reject the headers, and some ignore them: then the write or
the deletion takes place whatever the key holds. So a server is tried before, with a probe. It is tried for each of the
two: many servers know conditions on writes alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import is_repeated, status_of
from snapferry.stores.diagnosis.round_trip import DATA, FOLDER, new_probe
from snapferry.stores.errors import KeyMissing, StoreError, StoreUnavailable

from .probes import NO_ETAG, sweep_probes
from .small import delete, status

logger = logging.getLogger(__name__)

# 404: there is no object. 409: another request is writing it. 412: it is another version.
_CHANGED: Final = {404, 409, 412}


def supports_conditions(bucket: Bucket, space: str) -> bool:
    """
    Return whether the server enforces conditions on writes below *space*, which ends with ``/``.

    Writes a probe, and deletes it, and those that killed processes have left. A server is tried once in each process.
    Raises `StoreUnavailable`; whatever else goes wrong means that conditions are not supported.
    """
    features = bucket.features
    with features.lock:
        if features.enforces_conditions is None:
            features.enforces_conditions = _try(bucket, space, "writes", _enforced)
        return features.enforces_conditions


def supports_conditional_delete(bucket: Bucket, space: str) -> bool:
    """As `supports_conditions`, for deletions."""
    features = bucket.features
    with features.lock:
        if features.enforces_delete_conditions is None:
            features.enforces_delete_conditions = _try(bucket, space, "deletions", _enforced_on_deletion)
        return features.enforces_delete_conditions


def _try(bucket: Bucket, space: str, of: str, enforced: Callable[[Bucket, str, str], bool]) -> bool:
    """Return what *enforced* finds with a probe and its ETag. *of*: on what there are conditions, in words."""
    sweep_probes(bucket, space + FOLDER)
    probe, found = new_probe(space + FOLDER), False
    try:
        etag = _put(bucket, probe, DATA)
        found = bool(etag) and enforced(bucket, probe, etag)
    except StoreUnavailable:
        raise
    except StoreError as error:
        logger.info("%s: cannot try conditions on %s: %s", bucket.label, of, error.detail)
        return False
    finally:
        with suppress(StoreError):
            delete(bucket, probe)
    logger.info("%s: conditions on %s are %ssupported", bucket.label, of, "" if found else "not ")
    return found


def _enforced(bucket: Bucket, probe: str, etag: str) -> bool:
    return (
        not _written(bucket, probe, IfNoneMatch="*")
        and not _written(bucket, probe, IfMatch=NO_ETAG)
        and _written(bucket, probe, IfMatch=etag)
    )


def _enforced_on_deletion(bucket: Bucket, probe: str, etag: str) -> bool:
    # An answer alone proves nothing: the server may have done something else than it tells.
    return (
        not _deleted(bucket, probe, NO_ETAG)
        and status(bucket, probe) is not None
        and _deleted(bucket, probe, etag)
        and status(bucket, probe) is None
    )


def _written(bucket: Bucket, probe: str, **condition: str) -> bool:
    """Return whether the probe was written. A refusal other than that of the condition is raised."""
    try:
        _put(bucket, probe, DATA, **condition)
    except StoreError as error:
        if status_of(error) in _CHANGED:
            return False
        raise
    return True


def _deleted(bucket: Bucket, probe: str, etag: str) -> bool:
    """As `_written`, for a deletion on the condition of an *etag*."""
    try:
        _delete(bucket, probe, etag)
    except StoreError as error:
        if status_of(error) in _CHANGED:
            return False
        raise
    return True


def write_if(bucket: Bucket, key: str, data: bytes, expected: bytes | None) -> bool:
    """
    Write *data* under *key* if exactly *expected* is there, None: if nothing is; return whether it was.

    Raises `StoreError`; then it may be written. A request that boto3 repeated after an answer was lost finds its own
    bytes: that counts as written.
    """
    if expected is None:
        return _put_if(bucket, key, data, IfNoneMatch="*")
    etag = _etag_of(bucket, key, expected)
    return etag is not None and _put_if(bucket, key, data, IfMatch=etag)


def delete_if(bucket: Bucket, key: str, expected: bytes) -> bool:
    """
    Delete *key* if exactly *expected* is there; return whether it was.

    Raises `StoreError`; then it may be deleted. A request that boto3 repeated after an answer was lost finds nothing:
    that counts as deleted.
    """
    etag = _etag_of(bucket, key, expected)
    if etag is None:
        return False
    try:
        _delete(bucket, key, etag)
    except StoreError as error:
        if status_of(error) not in _CHANGED:
            raise
        return is_repeated(error) and status(bucket, key) is None
    return True


def _etag_of(bucket: Bucket, key: str, expected: bytes) -> str | None:
    """Return the ETag of *key* if exactly *expected* is there, else None."""
    with suppress(KeyMissing), bucket.errors(key, missing=KeyMissing):
        answer = bucket.call("get_object", Key=bucket.full_key(key))
        with answer["Body"] as body:
            held = body.read(len(expected) + 1)
        if held == expected:
            return str(answer["ETag"])
    return None


def _put_if(bucket: Bucket, key: str, data: bytes, **condition: str) -> bool:
    try:
        _put(bucket, key, data, **condition)
    except StoreError as error:
        if status_of(error) not in _CHANGED:
            raise
        return _holds(bucket, key, data)
    return True


def _holds(bucket: Bucket, key: str, data: bytes) -> bool:
    return _etag_of(bucket, key, data) is not None


def _delete(bucket: Bucket, key: str, etag: str) -> None:
    with bucket.errors(key, missing=KeyMissing):
        bucket.call("delete_object", Key=bucket.full_key(key), IfMatch=etag)


def _put(bucket: Bucket, key: str, data: bytes, **condition: str) -> str:
    """Write *data*; return its ETag as the server has it."""
    with bucket.errors(key, missing=KeyMissing):
        answer = bucket.call("put_object", Key=bucket.full_key(key), Body=data, **condition)
    return str(answer.get("ETag") or "")
