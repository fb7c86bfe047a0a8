"""
Publish snapshots: the last step of a job, and the only one that writes manifests.

The destination itself is asked for the presence of every object, whatever the ledger, a queue or an earlier answer
says.
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
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import shortened

MAX_REASON_CHARS: Final = 300
"""The reason for which a snapshot was not published is cut to this length."""


class SnapshotState(StrEnum):
    """The final state of a snapshot of a job, by the action of the job."""

    PUBLISHED = "published"
    VERIFIED = "verified"
    """All of its objects were read, and are intact."""
    CHECKED = "checked"
    """No object of it that was looked at is wrong. Not all bytes were read: a sample, a bound, or a fast check."""
    FETCHED = "fetched"
    FAILED = "failed"


ENDED_WELL: Final = frozenset(SnapshotState) - {SnapshotState.FAILED}
"""The states of snapshots with which nothing is left to do."""


@dataclass(frozen=True)
class SnapshotResult:
    """
    The result of publishing a snapshot.

    *failed*: the number of its objects that could not be copied. *missing*: the addresses that are absent at the
    destination although no copy failed. *written*: its manifest was not there, or corrupt, and was written. Both as in
    `snapferry.stores.stream_store.Published`. *reason*: why its manifest could not be written, in words. *transient*:
    the error, if publishing the snapshot again may succeed; then the state is not final.
    """

    state: SnapshotState = SnapshotState.PUBLISHED
    failed: int = 0
    missing: tuple[Address, ...] = ()
    written: bool = False
    reason: str = ""
    transient: StoreError | None = None


def publish_snapshots(
    source: StreamStore,
    destination: StreamStore,
    snapshot_ids: Sequence[SnapshotId],
    failed: AddressSet | None = None,
    *,
    unable: str = "could not be copied",
) -> dict[SnapshotId, SnapshotResult]:
    """
    Publish at *destination* the snapshots whose objects are all present; return the result of each snapshot.

    A snapshot that lists one of the *failed* addresses is not published; *unable* says what happened to these. The
    destination is asked once for the objects of all other snapshots. Raises `StoreError` if a store gives no answer at
    all; some snapshots may be published then. May be repeated, also at the same time.
    """
    results = without_objects(source, snapshot_ids, failed, "", unable)
    complete = [snapshot_id for snapshot_id in snapshot_ids if snapshot_id not in results]
    for snapshot_id, published in destination.publish_all(source, complete).items():
        if published.error is not None:
            results[snapshot_id] = failed_by(published.error)
        else:
            results[snapshot_id] = SnapshotResult(missing=published.missing, written=published.written)
    return results


def without_objects(
    store: StreamStore, snapshot_ids: Sequence[SnapshotId], failed: AddressSet | None, verb: str, what: str
) -> dict[SnapshotId, SnapshotResult]:
    """
    Return the results of those snapshots of *store* that name one of the *failed* addresses.

    *verb* ("is", or "") and *what* tell what happened to these objects. A snapshot whose manifest cannot be read fails
    as well.
    """
    results: dict[SnapshotId, SnapshotResult] = {}
    if failed is None or not len(failed):
        return results
    for snapshot_id in snapshot_ids:
        try:
            with store.read_manifest(snapshot_id) as manifest:
                failed_count = manifest.addresses().common(failed)
        except StoreError as error:
            results[snapshot_id] = failed_by(error)
            continue
        if failed_count:
            reason = f"{counted(failed_count, 'of its objects', 'of its objects', verb=verb)} {what}"
            results[snapshot_id] = SnapshotResult(SnapshotState.FAILED, failed=failed_count, reason=reason)
    return results


def failed_by(error: StoreError) -> SnapshotResult:
    """Return the result of a snapshot that could not be published because of *error*."""
    return SnapshotResult(
        SnapshotState.FAILED,
        reason=shortened(f"{type(error).__name__}: {error}", MAX_REASON_CHARS),
        transient=error if error.transient else None,
    )
