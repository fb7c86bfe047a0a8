"""
Publish snapshots: the last step, and the only one that writes manifests.

Presence of every object is asked from the destination itself, whatever any
ledger, queue or earlier answer says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import StoreError
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.printable import shortened

# So many characters of why a snapshot was not published are kept.
LONGEST_REASON: Final = 300


class Ended(StrEnum):
    """How a snapshot of a job ended."""

    PUBLISHED = "published"
    FAILED = "failed"


@dataclass(frozen=True)
class SnapshotEnd:
    """
    What came of publishing a snapshot.

    *failed*: how many of its objects are known not to be copied; *missing*: the addresses that are absent at the
    destination, though nothing failed, as in `stores.stream_store.Published`; *reason*: why its manifest could
    not be written, in words; *trouble*: a passing reason, so that it has not ended yet.
    """

    state: Ended = Ended.PUBLISHED
    failed: int = 0
    missing: tuple[Address, ...] = ()
    reason: str = ""
    trouble: StoreError | None = None


def publish_snapshots(
    source: StreamStore,
    destination: StreamStore,
    snapshot_ids: Sequence[SnapshotId],
    failed: AddressSet | None = None,
) -> dict[SnapshotId, SnapshotEnd]:
    """
    Publish those of *snapshot_ids* at *destination* of which every object is there; say how each ended.

    A snapshot that names one of the *failed* addresses is left alone. The
    destination is asked once for all objects of the others together. Raises
    `StoreError` where a store gives no answer at all; then some may be
    published. May be called again, also at the same time as itself.
    """
    ends: dict[SnapshotId, SnapshotEnd] = {}
    if failed is not None and len(failed):
        for snapshot_id in snapshot_ids:
            try:
                with source.read_manifest(snapshot_id) as manifest:
                    blocking = manifest.addresses().common(failed)
            except StoreError as error:
                ends[snapshot_id] = _end_by(error)
                continue
            if blocking:
                reason = f"{blocking} of its objects could not be copied"
                ends[snapshot_id] = SnapshotEnd(Ended.FAILED, failed=blocking, reason=reason)
    whole = [snapshot_id for snapshot_id in snapshot_ids if snapshot_id not in ends]
    for snapshot_id, published in destination.publish_all(source, whole).items():
        if published.error is not None:
            ends[snapshot_id] = _end_by(published.error)
        else:
            ends[snapshot_id] = SnapshotEnd(missing=published.missing)
    return ends


def _end_by(error: StoreError) -> SnapshotEnd:
    return SnapshotEnd(
        Ended.FAILED,
        reason=shortened(f"{type(error).__name__}: {error}", LONGEST_REASON),
        trouble=error if error.transient else None,
    )
