"""Check what a disk may hold after a loss of power: no snapshot without its objects, no wrong bytes that count."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.errors import StoreError, StoreNotFound
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from tests.faults.test_kill_points import copy_and_commit
from tests.opening import open_store
from tests.sample import assert_published_means_complete

from .disk import Model, Recording, State
from .trace import Call

Check = Callable[[Path, bool], Iterator[str]]
"""Yields what is wrong in a folder. The flag: the command had ended before the loss of power."""


def read_state(root: Path) -> State:
    """Return what a directory holds."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def write_state(root: Path, state: State) -> None:
    """Make a directory hold a state, and nothing else."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir()
    for path, data in state.items():
        above = root / path
        if data is None:
            above.mkdir(parents=True, exist_ok=True)
        else:
            above.parent.mkdir(parents=True, exist_ok=True)
            above.write_bytes(data)


def problems(
    calls: Sequence[Call],
    before: State,
    folder: Path,
    check: Check,
    models: Iterable[Model] = Model,
    *,
    enough: int = 1000,
) -> tuple[int, list[str]]:
    """
    Check every state of a recording in *folder*; return how many there were, and what is wrong.

    Stop after *enough* problems.
    """
    recording = Recording(calls, before)
    count, found = 0, []
    for model in models:
        for end, state in recording.states(model):
            count += 1
            write_state(folder, state)
            found += [
                f"{model}, power lost before call {end}: {wrong}"
                for wrong in check(folder, end == len(calls))
            ]
            if len(found) >= enough:
                return count, found
    return count, found


def store_check(reference: Path, ids: Sequence[SnapshotId], *, gone: Sequence[SnapshotId] = ()) -> Check:
    """
    Return the check of a store ``b`` of a command that copies snapshots *ids* from the store *reference*.

    *gone*: the command deletes these snapshots.
    """

    def check(folder: Path, ended: bool) -> Iterator[str]:
        source, store = open_store(str(reference)), open_store(str(folder / "b"))
        try:
            assert_published_means_complete(store)
        except StoreNotFound:
            pass
        except (StoreError, AssertionError) as error:
            yield f"published, and not complete: {error}"
        objects = _objects_of(source, ids)
        yield from _wrong_but_present(store, objects)
        published = set(_ids(store))
        if ended and not (set(ids) <= published and not published.intersection(gone)):
            yield f"the command had ended, and the store has the snapshots {sorted(published)}"
        try:
            copy_and_commit(source, store, list(ids))
            for snapshot in ids:
                assert digest(store.get_manifest(snapshot)) == snapshot
            assert_published_means_complete(store)
        except (StoreError, AssertionError) as error:
            yield f"the next job does not complete it: {type(error).__name__} {error}"

    return check


def _objects_of(source: SnapshotStore, ids: Sequence[SnapshotId]) -> dict[Address, int]:
    found: dict[Address, int] = {}
    for snapshot in ids:
        with source.read_manifest(snapshot) as manifest:
            found |= manifest.objects()
    return found


def _wrong_but_present(store: SnapshotStore, objects: dict[Address, int]) -> Iterator[str]:
    """Yield the objects that a job would not copy, although their bytes are wrong."""
    try:
        needed = set(store.objects_needed(objects))
    except StoreNotFound:
        return
    for address in objects.keys() - needed:
        try:
            store.get_object(address)
        except StoreError as error:
            yield f"counts as present: {error}"


def _ids(store: SnapshotStore) -> list[SnapshotId]:
    try:
        return store.list_manifest_ids()
    except StoreNotFound:
        return []
