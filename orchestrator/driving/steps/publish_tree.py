"""Publish the snapshot of a tree: make its manifest of what the workers reported, and check every object."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct
from typing import Final

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.planning.trees import listing_file
from snapferry.orchestrator.planning.trees.push_plan import max_bytes, recall_listing
from snapferry.stores.address import DIGEST_BYTES, Address, SnapshotId, digests_of
from snapferry.stores.backends.tree.listing import TreeListing
from snapferry.stores.backends.tree.manifest import build_manifest
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import ManifestIncomplete, StoreError
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import SnapshotResult, SnapshotState, failed_by
from snapferry.workers.ledger import FILE_RECORD_BYTES
from snapferry.workers.messages import encode_addresses

# The most files that are pushed again at once because their objects are absent.
MOST_AGAIN = 100_000

_unpacked: Final = Struct(f">{DIGEST_BYTES}sQ").iter_unpack
_EMPTY: Final = bytes(DIGEST_BYTES)


def publish_tree(
    drive: PlannedDrive, snapshot_ids: Sequence[SnapshotId], failed: AddressSet
) -> dict[SnapshotId, SnapshotResult]:
    """
    Publish the snapshot of a push, whose files are all accounted for; *failed* are the digests of paths of files.

    The record of the job gets the id of the snapshot. Raises `StoreError` and `SourceChanged`. May be repeated.
    """
    return {snapshot_id: _publish(drive, failed) for snapshot_id in snapshot_ids}


def _publish(drive: PlannedDrive, failed: AddressSet) -> SnapshotResult:
    if len(failed):
        reason = f"{counted(len(failed), 'file')} could not be pushed"
        return SnapshotResult(SnapshotState.FAILED, failed=len(failed), reason=reason)
    plan, ledger = drive.plan, drive.ledger
    records = bytearray()
    for piece in ledger.files(drive.job_id):
        checkpoint()
        records += piece
    records += bytes(max(0, FILE_RECORD_BYTES * plan.objects - len(records)))
    del records[FILE_RECORD_BYTES * plan.objects :]
    unknown = [position for position, record in enumerate(_unpacked(records)) if record == (_EMPTY, 0)]
    if unknown:
        # Redis lost them. The files are read again; their objects are present.
        return SnapshotResult(missing=tuple(map(plan.address, unknown[:MOST_AGAIN])))
    listing = recall_listing(ledger, drive.spec, drive.source)
    try:
        with _manifest(drive, listing, records) as manifest:
            drive.destination.publish(manifest)
            snapshot_id = manifest.id
    except ManifestIncomplete as error:
        return SnapshotResult(missing=_files_of(drive, error.missing, records))
    except StoreError as error:
        return failed_by(error)
    listing_file.forget(drive.job_id)
    ledger.set_fields(drive.job_id, ids=encode_addresses([snapshot_id]), first_snapshot=snapshot_id)
    return SnapshotResult()


def _manifest(drive: PlannedDrive, listing: TreeListing, records: bytearray) -> Manifest:
    largest = max_bytes(drive.spec)
    large = sum(int(length) > largest for columns in listing.columns() for length in columns.files().lengths)
    # `FilePlanner` puts the large files first; both kinds have the order of the listing.
    cut = FILE_RECORD_BYTES * large
    of_large, of_small = _unpacked(memoryview(records)[:cut]), _unpacked(memoryview(records)[cut:])
    digests, lengths = bytearray(), array("Q")
    for columns in listing.columns():
        some = [next(of_large if int(length) > largest else of_small) for length in columns.files().lengths]
        digests += b"".join(digest for digest, _ in some)
        lengths.extend(length for _, length in some)
    return build_manifest(listing.text, digests, lengths)


def _files_of(drive: PlannedDrive, objects: Sequence[str], records: bytearray) -> tuple[Address, ...]:
    """Return the digests of the paths of files whose *objects* are absent: one file for each object."""
    wanted = {digests_of([address]) for address in objects}
    found = []
    for position, (digest, _) in enumerate(_unpacked(records)):
        if digest in wanted:
            wanted.discard(digest)
            found.append(drive.plan.address(position))
            if len(found) == MOST_AGAIN:
                break
    return tuple(found)
