"""
Writes that replace one version of an object and no other ("Conditional writes", Amazon's user guide).

A server that does not know the condition ignores it, or refuses the request. A refused request is sent again without
one, and so are all later ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import may_reject_header, status_of
from snapferry.stores.errors import KeyChanged, StoreError

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

# 404: there is no object. 409: another request is writing it. 412: it is another version.
_CHANGED: Final = {404, 409, 412}


def only_over(bucket: Bucket, key: str, over: str | None, send: Callable[[Mapping[str, str]], _T]) -> _T:
    """
    Return what *send* returns for the condition, in boto3's parameters, that *key* has the ETag *over*, "" for nothing.

    None is no condition. Raises `KeyChanged` where something else is there, and what *send* raises.
    """
    if over is None or not bucket.features.conditions:
        return send({})
    try:
        return send({"IfMatch": over} if over else {"IfNoneMatch": "*"})
    except StoreError as error:
        if status_of(error) in _CHANGED:
            said = "another program has replaced it meanwhile; nothing was replaced"
            raise KeyChanged(bucket.label, key, said) from error
        if not may_reject_header(error):
            raise
        try:
            sent = send({})
        except StoreError:
            raise error from error.__cause__
    bucket.features.conditions = False
    logger.info("%s: the server rejects conditions of writes", bucket.label)
    return sent
