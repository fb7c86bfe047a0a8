"""Every job is in a true final state, and its ledger, its receipt and the stores agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from snapferry.workers.copying.commit import ENDED_WELL
from snapferry.workers.ledger import JobStatus, State, UnknownJob
from snapferry.workers.messages import Action
from tests.chaos.world import World
from tests.sample import tree

from .clauses import clause
from .published import manifests


def statuses(world: World) -> Iterator[JobStatus]:
    """Yield the status of each job of the round that Redis knows."""
    for job in dict.fromkeys(world.submitted):
        try:
            yield world.jobs.status(job)
        except UnknownJob:
            continue


@clause("every job ends")
def ended(world: World) -> Iterator[str]:
    """Check that no job is open or lost. Rounds wait for jobs before they ask the oracle."""
    for status in world.jobs.open():
        yield (
            f"job {status.job_id[:8]} ({status.action}) hangs: {status.state}, {status.batches_done} of"
            f" {status.batches_total} batches, paused: {status.paused}, waiting: {status.waiting}"
        )
    known = {status.job_id for status in statuses(world)}
    if not world.may_forget:
        yield from (f"job {job[:8]} is lost" for job in world.submitted if job not in known)


@clause("every end has a cause")
def explained(world: World) -> Iterator[str]:
    """Check that jobs fail or are cancelled only in rounds in which something can make them."""
    for status in statuses(world):
        about = f"job {status.job_id[:8]} ({status.action})"
        if status.state is State.CANCELLED and status.job_id not in world.cancelled:
            yield f"{about} is cancelled, and nobody did that"
        # Wrong bytes are read twice, and over plain HTTP bits may change on the way back for longer than that.
        if status.state is State.FAILED and not (world.may_fail or world.may_misread):
            yield f"{about} failed by faults that cost only time: {status.error}"
        if status.state is State.FAILED and not (status.error or status.failed):
            yield f"{about} failed without a reason"


@clause("objects of the plan = copied + present + failed")
def accounted(world: World) -> Iterator[str]:
    for status in statuses(world):
        settled = status.copied + status.present + status.failed
        about = f"job {status.job_id[:8]} ({status.action}, {status.state}) has settled {settled} of"
        if settled > status.objects_total or (
            status.state is State.DONE and settled != status.objects_total and not status.bounded
        ):
            yield f"{about} {status.objects_total} objects"
        if status.state is State.DONE and status.failed:
            yield f"{about} {status.objects_total} objects, and {status.failed} of them failed"


@clause("receipt = ledger")
def receipts(world: World) -> Iterator[str]:
    for status in statuses(world):
        about = f"receipt of {status.job_id[:8]} ({status.action}, {status.state})"
        document = world.jobs.receipt(status.job_id)
        objects = document["objects"]
        figures = {
            "total": status.objects_total,
            "copied": status.copied,
            "present": status.present,
            "failed": status.failed,
            "healed": status.healed,
        }
        if document["state"] != status.state or not document["final"] or objects != figures:
            yield f"{about}: {document['state']} {objects} instead of {figures}"
        rows = [row for row in document["snapshots"] if row["state"] in ENDED_WELL]
        if len(rows) != status.snapshots_published:
            yield f"{about}: {len(rows)} snapshots ended well instead of {status.snapshots_published}"
        for row in rows:
            parts = row["copied"] + row["present"] + row["shared"] + row["missing"]
            if row["objects"] != parts:
                yield f"{about}: the snapshot {row['id'][:12]} has {parts} of {row['objects']} objects"
        if (failed := sum(world.jobs.failed_by_class(status.job_id).values())) != status.failed:
            yield f"{about}: {failed} failures are listed, {status.failed} are counted"


def _root(world: World, url: str) -> Path | None:
    """Return where the files of the store at *url* are, whatever is mounted."""
    urls = [*world.destination_urls, *world.mirror_urls]
    roots = [*world.destinations, *world.mirrors]
    places = {urlsplit(one).netloc + urlsplit(one).path: root for one, root in zip(urls, roots, strict=True)}
    return places.get(urlsplit(url).netloc + urlsplit(url).path)


@clause("ledger = stores")
def in_stores(world: World) -> Iterator[str]:
    """Check that what a job says it has done is there."""
    for status in statuses(world):
        about = f"job {status.job_id[:8]} ({status.action}, {status.state})"
        rows = world.jobs.snapshots(status.job_id)
        spec = world.jobs.spec(status.job_id)
        assert spec is not None
        if spec.action is Action.PULL:
            target = Path(urlsplit(spec.destination.url).path)
            if status.state is State.DONE and tree(target) != _expected(world, spec.snapshot_ids[0]):
                yield f"{about}: the tree is not that of the snapshot"
            continue
        root = _root(world, spec.destination.url)
        if root is None or spec.action is Action.VERIFY:
            continue
        there = manifests(root).keys()
        for row in rows:
            if row.state in ENDED_WELL and row.id not in there:
                yield f"{about}: the snapshot {row.id[:12]} is not published"
            if spec.action is Action.PUSH and row.state == "published" and row.id != world.pushed:
                yield f"{about}: pushed another snapshot than the last time"
        if spec.prune and status.state is State.DONE and there != {*world.snapshots}:
            yield f"{about}: the mirror has not exactly the snapshots of its source"


def _expected(world: World, snapshot: str) -> dict[str, bytes]:
    return {path.removeprefix("./"): data for path, data in world.contents[snapshot].items()}
