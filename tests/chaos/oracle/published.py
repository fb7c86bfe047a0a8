"""What is published at a destination is complete, and every byte of it is right."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from snapferry.stores.address import parse_snapshot_id
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.parse import Manifest
from tests.chaos.world import World, content_of

from .clauses import clause
from .leftovers import all_temporary_files


def manifests(root: Path) -> dict[str, Path]:
    """Return the manifests in the store at *root*: snapshot id -> path."""
    folder = root / ".manifests"
    found = folder.rglob("?" * 55) if folder.is_dir() else ()
    return {"".join(path.relative_to(folder).parts): path for path in found}


def object_path(root: Path, address: str) -> Path:
    """Return where the store at *root* keeps the object at *address*."""
    return root / ".objects" / address[:3] / address[3:6] / address[6:9] / address[9:]


def _whole(path: Path, address: str) -> bool:
    try:
        return path.is_file() and not path.is_symlink() and digest(path.read_bytes()) == address
    except OSError:
        return False


def unpublished(root: Path, excused: AbstractSet[str]) -> Iterator[str]:
    """Yield each snapshot that is published at *root* without all of its objects, those that are *excused* aside."""
    for snapshot, path in manifests(root).items():
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            continue  # A mirror deletes manifests.
        if digest(text) != snapshot:
            yield f"{root}: the manifest {snapshot[:12]} has wrong bytes"
            continue
        with Manifest.from_bytes(parse_snapshot_id(snapshot), text) as manifest:
            for address in manifest.objects():
                if address not in excused and not _whole(object_path(root, address), address):
                    yield f"{root}: {snapshot[:12]} is published without {address[:12]}"
                    break


@clause("manifest last, and verified")
def published(world: World) -> Iterator[str]:
    """Check all destinations and mirrors."""
    for root in [*world.destinations, *world.mirrors]:
        yield from unpublished(root, world.damaged[root])


@clause("whole in the end")
def whole(world: World) -> Iterator[str]:
    """Check that the last jobs of a round have published all snapshots, without any excuse."""
    for root in world.destinations:
        if missing := {*world.snapshots} - manifests(root).keys():
            yield f"{root}: {len(missing)} snapshots are missing"
        yield from unpublished(root, set())
    for root in world.mirrors:
        if manifests(root).keys() != {*world.snapshots}:
            yield f"{root}: the mirror has not exactly the snapshots of its source"
        yield from unpublished(root, set())
    yield from all_temporary_files(world)


@clause("sources are as before")
def sources(world: World) -> Iterator[str]:
    """Check that no job has written to a source, or removed anything there."""
    for root, before in world.content.items():
        found = content_of(root)
        for path in sorted(found.keys() | before.keys()):
            if found.get(path) != before.get(path):
                yield f"{root}: {path} has {found.get(path)} bytes instead of {before.get(path)}"
