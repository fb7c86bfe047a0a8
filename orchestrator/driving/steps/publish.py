"""
End the snapshots of each group of the plan, once all batches up to the end of the group are accounted for.

A copy publishes them; what another action does is in `snapferry.orchestrator.driving.actions`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, NamedTuple

from snapferry.orchestrator.driving.actions import STEPS
from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.dispatch import queue_batches, queue_drive
from snapferry.orchestrator.planning.batches import Batch, pack_batches
from snapferry.orchestrator.planning.plan import Group, Plan
from snapferry.orchestrator.planning.prepare import failed_addresses
from snapferry.orchestrator.planning.snapshots import UNREADABLE
from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import SnapshotResult, SnapshotState
from snapferry.workers.copying.describe import describe_snapshots
from snapferry.workers.ledger import PLAN, Directive, State, bit, bits
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

# How often objects of one group that are absent after they were copied are copied again.
MAX_HEALS: Final = 4

# Groups that are complete at the same time are checked together, up to so many objects in all, 32 bytes of memory each.
# The more objects are asked for at once, the fewer pages of a listing each of them costs.
MOST_CHECKED_AT_ONCE: Final = 500_000

# While batches are outstanding, a check that took longer than `QUICK_S` is followed by a rest of this many times as
# long, at most so many seconds. Each check may list the whole destination, so further groups are worth waiting for.
QUICK_S: Final = 0.5
REST_SHARE: Final = 2
LONGEST_REST_S: Final = 60.0

# Objects that are counted between two checkpoints: some milliseconds.
POSITIONS_AT_ONCE: Final = 10_000


def heal_series(group: int, turn: int) -> str:
    """Return the name of the series of batches that heal a group for the *turn*-th time."""
    return f"heal-{group}-{turn}"


@dataclass(frozen=True)
class Published:
    """How many snapshots were published, how many could not be, and how many groups are being healed."""

    published: int = 0
    unpublished: int = 0
    healing: int = 0


class _Ready(NamedTuple):
    """
    A group whose batches are all accounted for.

    *rows* are those of its snapshots that have ended, and *turn* is how often it was healed.
    """

    group: Group
    rows: dict[int, list[Any]]
    turn: int

    @property
    def pending(self) -> list[int]:
        """The indexes of its snapshots that have not ended."""
        return [index for index in self.group.snapshots if index not in self.rows]


class _Settled(NamedTuple):
    """The bitmaps of the objects that were copied and that failed."""

    copied: bytes
    failed: bytes


class Publisher:
    """Publishes the groups of one job that are complete."""

    def __init__(self, drive: PlannedDrive) -> None:
        self._drive = drive
        self._ledger = drive.ledger
        self._job_id = drive.job_id
        self._failed: tuple[int, AddressSet] = (0, AddressSet())
        # The batches of a bounded job that did not begin.
        self._undone: list[int] = []

    def publish(self, *, bounded: bool = False) -> Published:
        """
        Publish the groups that are complete; return how many snapshots that were.

        If that took long, it rests until more groups are complete, but not once all batches are accounted for.
        With *bounded*, the job has reached its bound and no batch of it runs: every group ends with what was done. A
        row is recorded for each snapshot that ended. Raises `StoreError` where a store gives no answer; then some
        snapshots may be published and recorded. May be repeated.
        """
        standing = self._ledger.standing(self._job_id)
        if standing.state.final or standing.cancelling:
            return Published()
        plan = self._drive.plan
        missing = self._ledger.unaccounted(self._job_id, PLAN, range(plan.batches))
        self._undone = missing if bounded else []
        complete = missing[0] if missing and not bounded else plan.batches
        may_rest = bool(missing) and not bounded
        if may_rest and self._ledger.rests(self._job_id):
            return Published()
        began = time.monotonic()
        groups = self._ledger.groups(self._job_id)
        ready, healing = self._ready(complete, standing.heals, groups)
        published = unpublished = 0
        for run in _runs(ready):
            checkpoint()
            # A run may take minutes, and the next checkpoint may be seconds late to know.
            if self._ledger.directive(self._job_id) is Directive.STOP:
                break
            if not missing:
                self._ledger.advance(self._job_id, State.COMMITTING)
            ends = self._publish(run)
            unpublished += ends[SnapshotState.FAILED]
            published += ends.total() - ends[SnapshotState.FAILED]
        took_s = time.monotonic() - began
        if may_rest and ready and took_s > QUICK_S:
            rest_s = min(REST_SHARE * took_s, LONGEST_REST_S)
            self._ledger.rest(self._job_id, rest_s)
            # Batches that are outstanding may take hours, and none of them may end soon after the rest.
            queue_drive(self._drive.app, self._job_id, "groups may be complete", in_s=rest_s)
        if not published + unpublished and groups and self._all_ended(groups):
            # A process that died after it recorded the last group has not counted it, and nobody else would.
            self._count_snapshots()
        return Published(published, unpublished, healing)

    def _ready(
        self, complete: int, heals: Mapping[int, tuple[int, int]], groups: Mapping[int, dict[int, list[Any]]]
    ) -> tuple[list[_Ready], int]:
        """Return the groups to publish, of those whose batches are before *complete*, and how many are being healed."""
        ready, healing = [], 0
        for group in self._drive.plan.groups:
            checkpoint()
            if group.batches.stop > complete:
                break
            rows = groups.get(group.number, {})
            turn, batches = heals.get(group.number, (0, 0))
            if batches and self._ledger.unaccounted(
                self._job_id, heal_series(group.number, turn), range(batches)
            ):
                healing += 1
            elif len(rows) < len(group.snapshots):
                ready.append(_Ready(group, rows, turn))
        return ready, healing

    def _all_ended(self, groups: Mapping[int, dict[int, list[Any]]]) -> bool:
        return all(
            len(groups.get(group.number, {})) == len(group.snapshots) for group in self._drive.plan.groups
        )

    def _publish(self, run: Sequence[_Ready]) -> Counter[str]:
        """Publish the rest of the groups of *run*; record the snapshots that ended, and have the others healed."""
        ids = self._drive.snapshots.ids
        failed = self._failed_addresses()
        pending = [ids[index] for ready in run for index in ready.pending]
        ends = STEPS[self._drive.spec.action].end_group(self._drive, pending, failed)
        settled = self._settled()
        tally: Counter[str] = Counter()
        absent = [(ready, self._record(ready, ends, settled, tally)) for ready in run]
        self._count_snapshots()
        for ready, addresses in absent:
            if addresses:
                self._heal(ready.group, addresses, ready.turn + 1)
        for end in ends.values():
            if end.transient is not None:
                raise end.transient
        return tally

    def _record(
        self, ready: _Ready, ends: Mapping[SnapshotId, SnapshotResult], settled: _Settled, tally: Counter[str]
    ) -> set[str]:
        """Record the snapshots of a group that ended, and count them in *tally*; return the objects to copy again."""
        ids, group, rows = self._drive.snapshots.ids, ready.group, ready.rows
        counts = self._counts(group, settled)
        absent: set[str] = set()
        ended: dict[str, list[Any]] = {}
        for index in ready.pending:
            end = ends[ids[index]]
            if end.transient is not None:
                continue
            state, missing, reason = end.state, end.failed, end.reason
            if end.missing:
                reason = self._why_lost(end, ready.turn)
                if not reason:
                    absent.update(end.missing)
                    continue
                state, missing = SnapshotState.FAILED, len(end.missing)
            ended[ids[index]] = rows[index] = self._row(index, state, counts[index], missing, reason)
            tally[state] += 1
        self._ledger.record_group(self._job_id, group.number, rows)
        _log_ends(ended)
        return absent

    def _why_lost(self, end: SnapshotResult, turn: int) -> str:
        """Return why objects that are absent are not copied again, "" if they are: this was the *turn*-th time."""
        # A retry plans the objects that failed before, and no others.
        planned = self._drive.plan.positions(end.missing) if self._drive.spec.retries else end.missing
        if lost := len(end.missing) - len(planned):
            return (
                f"{counted(lost, 'object', verb='was')} there when this retry was planned, and"
                f" {'is' if lost == 1 else 'are'} absent now: something deletes them at the destination."
                f" snapferry resume {self._job_id} copies all that are absent"
            )
        if turn < MAX_HEALS:
            return ""
        return (
            f"{counted(len(end.missing), 'object', verb='was')} copied, and vanished again, the first is"
            f" {end.missing[0]}:"
            " something deletes them at the destination, or the store does not keep what it confirms"
        )

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

    def _settled(self) -> _Settled:
        return _Settled(
            self._ledger.bitmap(self._job_id, "copied"), self._ledger.bitmap(self._job_id, "failed")
        )

    def _counts(self, group: Group, settled: _Settled) -> dict[int, Counter[str]]:
        """Return the outcomes of the objects that each snapshot of *group* brings, also those left undone."""
        copied, failed = settled
        counts: dict[int, Counter[str]] = {index: Counter() for index in group.snapshots}
        undone = [self._drive.plan.positions_of(number) for number in self._undone if number in group.batches]
        if len(group.snapshots) == 1:
            failures = bits(failed, group.positions)
            of = counts[group.snapshots[0]]
            of["failed"] = failures.bit_count()
            of["copied"] = (bits(copied, group.positions) & ~failures).bit_count()
            of["undone"] = sum(map(len, undone))
            of["present"] = len(group.positions) - of["failed"] - of["copied"] - of["undone"]
            return counts
        for position in group.positions:
            if position % POSITIONS_AT_ONCE == 0:
                checkpoint()
            end = "failed" if bit(failed, position) else "copied" if bit(copied, position) else "present"
            counts[self._drive.plan.owner(position)][end] += 1
        for position in chain.from_iterable(undone):
            of = counts[self._drive.plan.owner(position)]
            of["undone"] += 1
            of["present"] -= 1
        return counts

    def _failed_addresses(self) -> AddressSet:
        # Objects fail while groups are published, so the count is read again for each group.
        count = int(self._ledger.field(self._job_id, "failed") or 0)
        if count != self._failed[0]:
            self._failed = count, failed_addresses(self._ledger, self._job_id, self._drive.plan)
        return self._failed[1]

    def _count_snapshots(self) -> None:
        """Set the job's counts of snapshots from the rows that are recorded."""
        tally = Counter(
            row[0] for rows in self._ledger.groups(self._job_id).values() for row in rows.values()
        )
        unreadable = len(self._drive.snapshots.of(UNREADABLE))
        self._ledger.set_fields(
            self._job_id,
            published=tally.total() - tally[SnapshotState.FAILED],
            unpublished=tally[SnapshotState.FAILED] + unreadable,
        )

    def _heal(self, group: Group, absent: set[str], turn: int) -> None:
        """Queue again the objects that were accounted for but are absent."""
        drive = self._drive
        if not self._ledger.advance(self._job_id, State.COPYING):
            return
        log.warning("copied objects are absent; copying them again", extra=fields(objects=len(absent)))
        positions = drive.plan.positions(absent)
        sizes = {address: drive.plan.size(position) for address, position in positions.items()}
        spec = drive.spec
        batches = [
            _placed(batch, [positions[address] for address in batch.objects], drive.plan)
            for batch in pack_batches(sizes, max_objects=spec.batch_objects, max_bytes=spec.batch_bytes)
        ]
        self._ledger.note_healing(self._job_id, group.number, turn=turn, batches=len(batches))
        first = drive.snapshots.ids[group.snapshots[0]]
        queue_batches(
            drive.app,
            spec,
            batches,
            series=heal_series(group.number, turn),
            of=len(batches),
            snapshots=describe_snapshots(first, len(group.snapshots)),
            turn=turn,
        )


def _runs(ready: Iterable[_Ready]) -> Iterator[list[_Ready]]:
    """Cut the groups that are *ready* into runs, each to be published together."""
    run: list[_Ready] = []
    named = 0
    for each in ready:
        named += each.group.named
        if run and named > MOST_CHECKED_AT_ONCE:
            yield run
            run, named = [], each.group.named
        run.append(each)
    if run:
        yield run


def _placed(batch: Batch, positions: Sequence[int], plan: Plan) -> Batch:
    """Return *batch* with the *positions* of its objects in *plan*, and with their lines."""
    lines = tuple(line for at in positions for line in plan.lines.of(at, at + 1)) if plan.lines else ()
    return replace(batch, positions=tuple(positions), lines=lines)


def _log_ends(rows: dict[str, list[Any]]) -> None:
    """Log which snapshots ended well and which did not: one line for each state, whatever the size of the group."""
    by_state: dict[str, list[str]] = {}
    for snapshot_id, row in rows.items():
        by_state.setdefault(row[0], []).append(snapshot_id)
    failed = by_state.pop(SnapshotState.FAILED, [])
    for state, ids in by_state.items():
        log.info("%s %s", counted(len(ids), "snapshot"), state, extra=fields(snapshots=ids))
    if failed:
        log.warning(
            "%s failed, the first: %s",
            counted(len(failed), "snapshot"),
            rows[failed[0]][-1],
            extra=fields(snapshots=failed),
        )
