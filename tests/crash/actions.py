"""The table of actions: how each begins, and what a process does for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from snapferry.orchestrator.driving.steps import window
from snapferry.orchestrator.jobs import store_pair
from snapferry.stores.address import SnapshotId, manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.stores.names.name import NameRecord, parse_name
from snapferry.workers.messages import Action, JobSpec, Prune, TreeOptions, encode_addresses
from tests.sample import fill

from .process import Process
from .schedule import begin_schedule, run_schedule, schedule_ran
from .world import JOB, World

FILES: Final = {f"./f{n}": bytes([n + 1]) * (100 * n + 50) for n in range(5)}
OTHERS: Final = {**FILES, "./own": b"own" * 100}


@dataclass(frozen=True)
class Row:
    """
    An action. *begin* fills the stores of a world; *work* does the action, from its begin or after a death.

    *check* raises AssertionError if the world does not hold in the end what it must. *damaged*: a store is wrong at the
    begin. *survives_loss*: it is completed although the messages of the dead process are lost for good.
    """

    name: str
    begin: Callable[[World], None]
    work: Callable[[Process], None]
    check: Callable[[World], None]
    damaged: bool = False
    survives_loss: bool = True


def _spec(world: World, action: Action, ids: list[SnapshotId], **further: Any) -> JobSpec:
    source, destination = further.pop("stores", None) or store_pair(world.source, world.destination)
    return JobSpec(
        job_id=JOB,
        action=action,
        source=source,
        destination=destination,
        snapshots=encode_addresses(ids),
        batch_objects=2,
        batch_bytes=10**6,
        window_batches=2,
        **further,
    )


def _job(spec: Callable[[World], JobSpec]) -> Callable[[Process], None]:
    def work(process: Process) -> None:
        process.submit(spec(process.world))
        process.complete()

    return work


def _ended_well(world: World, *, objects: int) -> None:
    (receipt,) = world.seen()["receipts"]
    assert receipt["state"] == "done", receipt["error"]
    assert receipt["objects"] == {"total": objects, "settled": objects, "failed": 0}


# Copy, and copy as a mirror: with names, and with the deletion of what the source does not have.


def _two_snapshots(world: World) -> None:
    store = world.store(world.source)
    world.memory["ids"] = [fill(store, FILES), fill(store, OTHERS)]


def _copy(world: World) -> JobSpec:
    return _spec(world, Action.COPY, world.memory["ids"])


def _copied(world: World) -> None:
    _ended_well(world, objects=len(OTHERS))
    assert world.store().list_manifest_ids() == sorted(world.memory["ids"])


# A copy whose first batches are queued before its last manifest is read.


def _disjoint_snapshots(world: World) -> None:
    store = world.store(world.source)
    world.memory["ids"] = [
        fill(store, {f"./f{n}": b"%d %d" % (number, n) * 20 for n in range(3)}) for number in range(3)
    ]


def _copy_while_planning(process: Process) -> None:
    # This process is a fork that ends with the action.
    window.GROW_S = 0.0  # type: ignore[misc]
    _job(_copy)(process)


def _copied_while_planning(world: World) -> None:
    _ended_well(world, objects=9)
    assert world.store().list_manifest_ids() == sorted(world.memory["ids"])


def _mirrored_before(world: World) -> None:
    _two_snapshots(world)
    source, destination = world.store(world.source), world.store()
    gone, stays = fill(destination, {"./gone": b"gone"}), fill(destination, {"./stays": b"stays"})
    fill(source, {"./stays": b"stays"})
    source.names.write(parse_name("stable"), NameRecord(world.memory["ids"][1]))
    world.memory["gone"] = gone
    world.memory["ids"].append(stays)


def _mirror(world: World) -> JobSpec:
    return _spec(world, Action.COPY, [], everything=True, prune=Prune(), names=True)


def _mirrored(world: World) -> None:
    _ended_well(world, objects=len(OTHERS) + 1)
    store = world.store()
    assert store.list_manifest_ids() == sorted(world.memory["ids"])
    assert list(store.names.names()) == ["stable"]
    (receipt,) = world.seen()["receipts"]
    assert receipt["deleted"] == [world.memory["gone"]]


# Heal.


def _damaged(world: World) -> None:
    _two_snapshots(world)
    for snapshot in (FILES, OTHERS):
        fill(world.store(), snapshot)
    backend = world.backend()
    wrong = {
        object_key(digest(FILES["./f1"])): b"wrong",
        manifest_key(world.memory["ids"][0]): b"a wrong manifest",
    }
    for key, data in wrong.items():
        backend.write(key, data)
    backend.delete(object_key(digest(FILES["./f2"])))
    world.memory["wrong"] = wrong


def _heal(world: World) -> JobSpec:
    return _spec(world, Action.HEAL, world.memory["ids"])


def _healed(world: World) -> None:
    _ended_well(world, objects=len(OTHERS))
    kept = world.seen()["quarantine"]
    assert kept == sorted(world.memory["wrong"].values())


# Push and pull.


def _make_tree(root: Path) -> None:
    (root / "sub" / "empty").mkdir(parents=True)
    for name, data in FILES.items():
        (root / name).write_bytes(data)
    (root / "sub" / "script").write_bytes(b"#!/bin/sh\n")
    (root / "sub" / "script").chmod(0o755)


def _tree_to_push(world: World) -> None:
    _make_tree(world.tree)


def _push(world: World) -> JobSpec:
    stores = store_pair(f"tree://{world.tree}", world.destination)
    return _spec(world, Action.PUSH, [], everything=True, stores=stores, tag="pushed")


def _pushed(world: World) -> None:
    _ended_well(world, objects=len(FILES) + 1)
    store = world.store()
    (snapshot,) = store.list_manifest_ids()
    record = store.names.find(parse_name("pushed"))
    assert record is not None
    assert record.snapshot_id == snapshot


def _tree_to_pull(world: World) -> None:
    # Pulled from the destination of the world, so that it is pulled from S3 too.
    world.memory["ids"] = [fill(world.store(), OTHERS)]
    (world.tree / "gone").mkdir(parents=True)
    (world.tree / "gone" / "x").write_bytes(b"x")
    (world.tree / "f1").write_bytes(b"old")
    (world.tree / "f2").mkdir()


def _pull(world: World) -> JobSpec:
    stores = store_pair(world.destination, f"tree://{world.tree}")
    return _spec(world, Action.PULL, world.memory["ids"], stores=stores, tree=TreeOptions(delete=True))


def _pulled(world: World) -> None:
    _ended_well(world, objects=len(OTHERS))
    found = {f"./{path.relative_to(world.tree)}": path.read_bytes() for path in world.tree.iterdir()}
    assert found == OTHERS


# Names, by the commands of a user.


def _to_tag(world: World) -> None:
    store = world.store()
    world.memory["ids"] = [fill(store, FILES), fill(store, OTHERS)]
    for name in ("moved", "gone"):
        store.names.write(parse_name(name), NameRecord(world.memory["ids"][0]))


def _tag(process: Process) -> None:
    store, latest = process.world.store(), process.world.memory["ids"][1]
    for name in ("moved", "new"):
        store.names.write(parse_name(name), NameRecord(latest))
    store.names.delete(parse_name("gone"))


def _tagged(world: World) -> None:
    store, latest = world.store(), world.memory["ids"][1]
    found = {name: one.record and one.record.snapshot_id for name, one in store.names.listed().items()}
    assert found == dict.fromkeys(("moved", "new"), latest)


ACTIONS: Final = (
    Row("copy", _two_snapshots, _job(_copy), _copied),
    Row("growing", _disjoint_snapshots, _copy_while_planning, _copied_while_planning),
    Row("mirror", _mirrored_before, _job(_mirror), _mirrored),
    Row("heal", _damaged, _job(_heal), _healed, damaged=True),
    Row("push", _tree_to_push, _job(_push), _pushed),
    Row("pull", _tree_to_pull, _job(_pull), _pulled),
    Row("tag", _to_tag, _tag, _tagged),
    # No job is recorded before the message that it is due was taken, so nobody knows of a message that is lost.
    Row("schedule", begin_schedule, run_schedule, schedule_ran, survives_loss=False),
)
