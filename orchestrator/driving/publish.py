"""Publish what is whole: the snapshots of each group of the plan, as soon as all batches up to it are accounted for."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from snapferry.orchestrator.planning.plan import Group, pack
from snapferry.orchestrator.planning.prepare import failed_addresses
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import Ended, publish_snapshots
from snapferry.workers.copying.describe import describe_snapshots
from snapferry.workers.ledger import PLAN, State, bit, bits
from snapferry.workers.telemetry.logs import fields

from .dispatch import hand_out

if TYPE_CHECKING:
    from .drive import Drive

log = logging.getLogger(__name__)

# Objects that are absent after they were copied are copied again this often, for one group.
MAX_HEALS: Final = 4


# So many objects are counted between two checkpoints: some milliseconds.
POSITIONS_AT_ONCE: Final = 10_000


def heal_series(group: int, turn: int) -> str:
    """Return the name of the series of batches that heal a group for the *turn*-th time."""
    return f"heal-{group}-{turn}"


def _log_ends(rows: dict[str, list[Any]]) -> None:
    """Say what was published and what was not: a line for each, however many snapshots a group has."""
    published = [snapshot_id for snapshot_id, row in rows.items() if row[0] == Ended.PUBLISHED]
    failed = [snapshot_id for snapshot_id, row in rows.items() if row[0] != Ended.PUBLISHED]
    if published:
        log.info("%s published", counted(len(published), "snapshot"), extra=fields(snapshots=published))
    if failed:
        log.warning(
            "%s not published, the first: %s",
            counted(len(failed), "snapshot"),
            rows[failed[0]][-1],
            extra=fields(snapshots=failed),
        )


class Publisher:
    """Publishes the groups of one job, as far as it has come."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._ledger = drive.ledger
        self._job_id = drive.job_id
        self._failed: tuple[int, AddressSet] = (0, AddressSet())

    def publish(self) -> str:
        """
        Publish every group that can be; return what was done, in words.

        A row is recorded for each snapshot that came to its end. Raises
        `StoreError` where a store gives no answer; then some may be published
        and recorded. May be called again.
        """
        standing = self._ledger.standing(self._job_id)
        if standing.state.final or standing.cancelling:
            return ""
        plan = self._drive.plan
        missing = self._ledger.unaccounted(self._job_id, PLAN, range(plan.batches))
        whole = missing[0] if missing else plan.batches
        groups = self._ledger.groups(self._job_id)
        published = failed = healing = 0
        for group in plan.groups:
            checkpoint()
            if group.batches.stop > whole:
                break
            rows = groups.get(group.number, {})
            turn, batches = standing.heals.get(group.number, (0, 0))
            waits = self._ledger.unaccounted(self._job_id, heal_series(group.number, turn), range(batches))
            if len(rows) == len(group.snapshots) or waits:
                healing += bool(waits)
                continue
            if self._ledger.standing(self._job_id).cancelling:
                break
            if not missing:
                self._ledger.advance(self._job_id, State.COMMITTING)
            ends = self._publish(group, rows, turn)
            published += ends[Ended.PUBLISHED]
            failed += ends[Ended.FAILED]
        said = [
            f"{counted(published, 'snapshot')} published" if published else "",
            f"{failed} could not be" if failed else "",
            f"healing {counted(healing, 'group')}" if healing else "",
        ]
        return ", ".join(part for part in said if part)

    def _publish(self, group: Group, rows: dict[int, list[Any]], turn: int) -> Counter[str]:
        """Publish what is left of *group*; record what came to its end, and have the rest healed."""
        ids = self._drive.snapshots.ids
        failed = self._failed_addresses()
        pending = {ids[index]: index for index in group.snapshots if index not in rows}
        ends = publish_snapshots(self._drive.source, self._drive.destination, list(pending), failed)
        counts = self._counts(group)
        absent: set[str] = set()
        tally: Counter[str] = Counter()
        trouble: StoreError | None = None
        for snapshot_id, end in ends.items():
            index = pending[snapshot_id]
            if end.trouble is not None:
                trouble = end.trouble
                continue
            if end.missing:
                if turn < MAX_HEALS:
                    absent.update(end.missing)
                    continue
                reason = (
                    f"{len(end.missing)} objects were copied and are absent again, the first is {end.missing[0]}:"
                    " something deletes them at the destination"
                )
                rows[index] = self._row(index, Ended.FAILED, counts[index], len(end.missing), reason)
            else:
                rows[index] = self._row(index, end.state, counts[index], end.failed, end.reason)
            tally[rows[index][0]] += 1
        self._ledger.record_group(self._job_id, group.number, rows)
        self._count_snapshots()
        _log_ends(
            {snapshot_id: rows[pending[snapshot_id]] for snapshot_id in ends if pending[snapshot_id] in rows}
        )
        if absent:
            self._heal(group, absent, turn + 1)
        if trouble is not None:
            raise trouble
        return tally

    def _row(self, index: int, state: str, counts: Counter[str], missing: int, reason: str) -> list[Any]:
        planned = self._drive.plan.snapshots[index]
        return [
            state,
            planned.objects,
            planned.size_bytes,
            counts["copied"],
            counts["present"],
            planned.shared,
            missing,
            round(time.time(), 3),
            reason,
        ]

    def _counts(self, group: Group) -> dict[int, Counter[str]]:
        """Return how the objects that each snapshot of *group* brings ended: copied, present, failed."""
        copied = self._ledger.bitmap(self._job_id, "copied")
        failed = self._ledger.bitmap(self._job_id, "failed")
        counts: dict[int, Counter[str]] = {index: Counter() for index in group.snapshots}
        if len(group.snapshots) == 1:
            failures = bits(failed, group.positions)
            of = counts[group.snapshots[0]]
            of["failed"] = failures.bit_count()
            of["copied"] = (bits(copied, group.positions) & ~failures).bit_count()
            of["present"] = len(group.positions) - of["failed"] - of["copied"]
            return counts
        for position in group.positions:
            if position % POSITIONS_AT_ONCE == 0:
                checkpoint()
            end = "failed" if bit(failed, position) else "copied" if bit(copied, position) else "present"
            counts[self._drive.plan.owner(position)][end] += 1
        return counts

    def _failed_addresses(self) -> AddressSet:
        count = self._ledger.standing(self._job_id).failed
        if count != self._failed[0]:
            self._failed = count, failed_addresses(self._ledger, self._job_id, self._drive.plan)
        return self._failed[1]

    def _count_snapshots(self) -> None:
        """Set the job's counts of snapshots from what is recorded of each."""
        tally = Counter(
            row[0] for rows in self._ledger.groups(self._job_id).values() for row in rows.values()
        )
        unreadable = len(self._drive.snapshots.of("x"))
        self._ledger.set_fields(
            self._job_id,
            published=tally[Ended.PUBLISHED],
            unpublished=tally[Ended.FAILED] + unreadable,
        )

    def _heal(self, group: Group, absent: set[str], turn: int) -> None:
        """Queue objects that were accounted for and yet are absent."""
        drive = self._drive
        if not self._ledger.advance(self._job_id, State.COPYING):
            return
        log.warning("%d objects are absent after copying; copying them again", len(absent))
        places = drive.plan.positions(absent)
        sizes = {address: drive.plan.size(place) for address, place in places.items()}
        request = drive.request
        batches = [
            replace(batch, positions=tuple(places[address] for address in batch.objects))
            for batch in pack(sizes, max_objects=request.batch_objects, max_bytes=request.batch_bytes)
        ]
        self._ledger.note_healing(self._job_id, group.number, turn=turn, batches=len(batches))
        first = drive.snapshots.ids[group.snapshots[0]]
        words = describe_snapshots(first, len(group.snapshots))
        series = heal_series(group.number, turn)
        hand_out(drive.app, request, batches, series=series, of=len(batches), snapshots=words, again=turn)
