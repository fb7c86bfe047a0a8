"""
Writes that replace one version of an object and no other ("Conditional writes", Amazon's user guide).

A server that does not know the condition ignores it, or refuses the request. A refused request is sent again without
one, and so are all later ones. A server may also find that the condition does not hold although it does, as Ceph does
where the ETag is in quotes. So the object is looked at: it is the version that was wrong, or another one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import may_reject_header, status_of
from snapferry.stores.errors import KeyChanged, StoreError

from .small import status

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

# 404: there is no object. 409: another request is writing it. 412: it is another version.
_CHANGED: Final = {404, 409, 412}


def only_over(bucket: Bucket, key: str, over: str | None, send: Callable[[Mapping[str, str]], _T]) -> _T:
    """
    Return what *send* returns for the condition, in boto3's parameters, that *key* has the ETag *over*, "" for nothing.

    None is no condition. Raises `KeyChanged` where something else is there, and what *send* raises.
    """
    features = bucket.features
    if over is None or not features.conditions:
        return send({})
    try:
        return send(_condition(over, quoted=features.quoted))
    except StoreError as error:
        if status_of(error) in _CHANGED:
            if _etag(bucket, key) != over:
                raise _changed(bucket, key) from error
        elif not may_reject_header(error):
            raise
        refusal = error
    if features.quoted and over:
        try:
            sent = send(_condition(over, quoted=False))
        except StoreError as error:
            if status_of(error) in _CHANGED and _etag(bucket, key) != over:
                raise _changed(bucket, key) from error
        else:
            features.quoted = False
            return sent
    try:
        sent = send({})
    except StoreError:
        raise refusal from refusal.__cause__
    features.conditions = False
    logger.info("%s: the server rejects conditions of writes", bucket.label)
    return sent


def _condition(over: str, *, quoted: bool) -> dict[str, str]:
    if not over:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": over if quoted else over.strip('"')}


def _etag(bucket: Bucket, key: str) -> str:
    """Return the ETag of what is under *key*, "" for nothing."""
    found = status(bucket, key)
    return "" if found is None else found.etag


def _changed(bucket: Bucket, key: str) -> KeyChanged:
    return KeyChanged(bucket.label, key, "another program has replaced it meanwhile; nothing was replaced")
