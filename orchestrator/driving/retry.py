"""
A retry copies the objects that failed in another job. Those that the other job copied may have been lost since.

Then the retry does what a resume does: it copies every object that the destination lacks, because it must end with
complete snapshots.
"""

from __future__ import annotations

import logging

from snapferry.orchestrator.planning.prepare import OF_ONE, failed_addresses, recall
from snapferry.stores.manifest.known_lines import NamedObjects
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.workers.messages import JobSpec
from snapferry.workers.telemetry.logs import fields

from .context import Drive

log = logging.getLogger(__name__)

_AT_ONCE = 10_000


def request_of(drive: Drive) -> JobSpec:
    """
    Return the request by which the job of *drive* is planned: its own, or for a retry that finds more objects absent
    than those that failed, the request to resume the job that it retries.

    To be called before the job is planned, which records the request. Raises `StoreError` where a store gives no
    answer, and as `recall` does for the job that it retries.
    """
    spec = drive.spec
    if not spec.retries or not spec.action.writes or spec.action.tree_side:
        return spec
    lost = _count_lost(drive)
    if not lost:
        return spec
    log.warning(
        "objects were lost since they were copied; the retry copies all that are absent",
        extra=fields(job=spec.job_id, objects=lost),
    )
    return spec.model_copy(update={"retries": "", "resumes": spec.retries})


def _count_lost(drive: Drive) -> int:
    """Return how many objects of the job's snapshots the destination lacks although they did not fail before."""
    ledger, retried = drive.ledger, drive.spec.retries
    named = NamedObjects()
    for snapshot_id in drive.spec.snapshot_ids:
        checkpoint()
        try:
            with drive.catalogue.read_manifest(snapshot_id) as manifest:
                named.add(manifest)
        except OF_ONE:
            # Planning notes it.
            continue
    absent = drive.destination.absent(named.addresses)
    if not len(absent):
        return 0
    _, plan = recall(ledger, ledger.spec(retried), drive.catalogue)
    failed = failed_addresses(ledger, retried, plan)
    return len(absent) - sum(len(failed.among(chunk)) for chunk in absent.chunks(_AT_ONCE))
