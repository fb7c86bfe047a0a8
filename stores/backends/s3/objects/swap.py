"""
Write an object only if the key holds what the writer expects, in one step of the server.

Amazon S3 and some other servers support this by the headers If-Match and If-None-Match of PutObject (user guide,
"Conditional requests"). Others reject the headers, and some ignore them: then the write takes place whatever the key
holds. So a server is tried before, with a probe.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import status_of
from snapferry.stores.diagnosis.round_trip import DATA, FOLDER, new_probe
from snapferry.stores.errors import KeyMissing, StoreError, StoreUnavailable

from .probes import NO_ETAG, sweep_probes
from .small import delete

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
            sweep_probes(bucket, space + FOLDER)
            features.enforces_conditions = _enforced(bucket, new_probe(space + FOLDER))
            logger.info(
                "%s: conditions on writes are %ssupported",
                bucket.label,
                "" if features.enforces_conditions else "not ",
            )
        return features.enforces_conditions


def _enforced(bucket: Bucket, probe: str) -> bool:
    try:
        etag = _put(bucket, probe, DATA)
        return (
            bool(etag)
            and not _written(bucket, probe, IfNoneMatch="*")
            and not _written(bucket, probe, IfMatch=NO_ETAG)
            and _written(bucket, probe, IfMatch=etag)
        )
    except StoreUnavailable:
        raise
    except StoreError as error:
        logger.info("%s: cannot try conditions on writes: %s", bucket.label, error.detail)
        return False
    finally:
        with suppress(StoreError):
            delete(bucket, probe)


def _written(bucket: Bucket, probe: str, **condition: str) -> bool:
    """Return whether the probe was written. A refusal other than that of the condition is raised."""
    try:
        _put(bucket, probe, DATA, **condition)
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
    if expected is not None:
        with suppress(KeyMissing), bucket.errors(key, missing=KeyMissing):
            answer = bucket.call("get_object", Key=bucket.full_key(key))
            with answer["Body"] as body:
                held = body.read(len(expected) + 1)
            if held == expected:
                return _put_if(bucket, key, data, IfMatch=str(answer["ETag"]))
        return False
    return _put_if(bucket, key, data, IfNoneMatch="*")


def _put_if(bucket: Bucket, key: str, data: bytes, **condition: str) -> bool:
    try:
        _put(bucket, key, data, **condition)
    except StoreError as error:
        if status_of(error) not in _CHANGED:
            raise
        return _holds(bucket, key, data)
    return True


def _holds(bucket: Bucket, key: str, data: bytes) -> bool:
    with suppress(KeyMissing), bucket.errors(key, missing=KeyMissing):
        answer = bucket.call("get_object", Key=bucket.full_key(key))
        with answer["Body"] as body:
            return bool(body.read(len(data) + 1) == data)
    return False


def _put(bucket: Bucket, key: str, data: bytes, **condition: str) -> str:
    """Write *data*; return its ETag as the server has it."""
    with bucket.errors(key, missing=KeyMissing):
        answer = bucket.call("put_object", Key=bucket.full_key(key), Body=data, **condition)
    return str(answer.get("ETag") or "")
