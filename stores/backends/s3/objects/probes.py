"""What the probes of a bucket share: an ETag that no object has, and the removal of what killed probes left."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.diagnosis.round_trip import is_stale
from snapferry.stores.errors import StoreError

from .small import delete, list_keys

NO_ETAG: Final = '"00000000000000000000000000000000"'
"""An ETag that no object has."""


def sweep_probes(bucket: Bucket, folder: str) -> None:
    """Delete the probes in *folder* whose processes are gone. Never raises `StoreError`."""
    with suppress(StoreError):
        for key, _, modified in list(list_keys(bucket, folder)):
            if is_stale(key, modified):
                delete(bucket, key)
