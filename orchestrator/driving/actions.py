"""
What a drive does by the action of its job: how it is planned, how a complete group ends, how the job is concluded.

To add an action: a row here, and one in `snapferry.workers.copying.actions`, which has the function that runs a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from snapferry.orchestrator.planning.estimates.checking import estimate_heal, estimate_verify
from snapferry.orchestrator.planning.estimates.copying import estimate_job
from snapferry.orchestrator.planning.estimates.trees import estimate_pull, estimate_push
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.prepare import prepare, prepare_check, recall, recall_check
from snapferry.orchestrator.planning.snapshots import Snapshots, freeze
from snapferry.orchestrator.planning.trees.pull_plan import prepare_pull, recall_pull
from snapferry.orchestrator.planning.trees.push_plan import (
    freeze_push,
    prepare_push,
    recall_push,
)
from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.copying.commit import SnapshotResult, publish_snapshots
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import Action, JobSpec

from .context import PlannedDrive
from .outcome import DriveOutcome
from .steps.conclude import conclude
from .steps.heal import conclude_heal, end_healed, prepare_heal
from .steps.publish_tree import publish_tree
from .steps.settle_tree import conclude_pull, settle_tree
from .steps.verify import conclude_verify, end_verified

Planned = tuple[Snapshots, Plan]


@dataclass(frozen=True)
class Steps:
    """
    The steps of an action. Each may be taken again, by another orchestrator, at any time.

    *prepare* chooses the snapshots and plans them, for the job's source and destination. *freeze* returns the fields of
    the job's record from which *recall* computes the same plan again, maybe on another machine, from the manifests of
    `JobSpec.catalogue`. *estimate* returns what a dry run would do, as docs/json.md describes it; it is also asked of a
    job with a budget. *end_group* ends the snapshots of a group whose batches are all accounted for, given the
    addresses that failed in the job. *conclude* ends the job if every snapshot has ended.
    """

    prepare: Callable[[Ledger, JobSpec, StreamStore, StreamStore], Planned]
    freeze: Callable[[JobSpec, Snapshots], dict[str, str | float]]
    recall: Callable[[Ledger, JobSpec, StreamStore], Planned]
    estimate: Callable[[JobSpec, Snapshots, Plan, StreamStore, StreamStore], dict[str, Any]]
    end_group: Callable[[PlannedDrive, Sequence[SnapshotId], AddressSet], dict[SnapshotId, SnapshotResult]]
    conclude: Callable[[PlannedDrive], DriveOutcome | None]


def _publish(
    drive: PlannedDrive, snapshot_ids: Sequence[SnapshotId], failed: AddressSet
) -> dict[SnapshotId, SnapshotResult]:
    return publish_snapshots(drive.source, drive.destination, snapshot_ids, failed)


STEPS: Final[dict[Action, Steps]] = {
    Action.COPY: Steps(prepare, freeze, recall, estimate_job, _publish, conclude),
    Action.HEAL: Steps(prepare_heal, freeze, recall, estimate_heal, end_healed, conclude_heal),
    Action.PULL: Steps(prepare_pull, freeze, recall_pull, estimate_pull, settle_tree, conclude_pull),
    Action.PUSH: Steps(prepare_push, freeze_push, recall_push, estimate_push, publish_tree, conclude),
    Action.VERIFY: Steps(prepare_check, freeze, recall_check, estimate_verify, end_verified, conclude_verify),
}
"""Action -> its steps."""
