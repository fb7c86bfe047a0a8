"""Objects are deleted, corrupted, and replaced by links, FIFOs and directories: in sources and in destinations."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.chaos.world import World

from .registry import Act, NotPossible, fault


def _remove(path: Path) -> None:
    """Remove whatever is at *path*. Who waits for a FIFO's first byte gets its end."""
    if path.is_fifo():
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _corrupt(path: Path) -> None:
    """Leave its length: only its digest shows the damage."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    beside = path.with_name(f"{path.name[:8]}.damaged")
    beside.write_bytes(data)
    beside.replace(path)


def _replaced(by: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        with suppress(FileExistsError):
            by(path)

    return replace


DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "deleted": _replaced(lambda _: None),
    "corrupted": _corrupt,
    "replaced by a link": _replaced(lambda path: path.symlink_to("/etc/hostname")),
    "replaced by a FIFO": _replaced(os.mkfifo),
    "replaced by a directory": _replaced(Path.mkdir),
}


def _objects(root: Path) -> list[Path]:
    found = (root / ".objects").rglob("?" * 55)
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and path.stat().st_size)


def _source_object(damage: Callable[[Path], None]) -> Act:
    """Damage an object of a source, and undo it."""

    def act(world: World, chance: random.Random) -> Iterator[str]:
        path = chance.choice(_objects(chance.choice(world.sources)))
        data = path.read_bytes()
        damage(path)
        try:
            yield str(path.relative_to(world.folder))
        finally:
            _remove(path)
            path.write_bytes(data)

    act.__module__ = __name__
    return act


def _destination_object(damage: Callable[[Path], None]) -> Act:
    """
    Damage an object of a destination. The round's last jobs heal it.

    In a bucket, what is not a file is removed in the end: a real bucket has no links, FIFOs and directories, and the
    server of the test never answers for a FIFO.
    """

    def act(world: World, chance: random.Random) -> Iterator[str]:
        root = chance.choice(world.destinations)
        found = _objects(root)
        if not found:
            raise NotPossible("the destination has no object yet")
        path = chance.choice(found)
        with world.damaging(root, path):
            try:
                damage(path)
            except FileNotFoundError:
                raise NotPossible("the object is gone") from None
        try:
            yield str(path.relative_to(world.folder))
        finally:
            if root != world.destinations[0] and (path.is_symlink() or not path.is_file()):
                _remove(path)

    act.__module__ = __name__
    return act


for _name, _damage in DAMAGES.items():
    fault(f"source object {_name}", (2.0, 10.0), fails=True)(_source_object(_damage))
    fault(f"destination object {_name}", (2.0, 10.0), fails=True)(_destination_object(_damage))


@fault("links planted at a destination", (3.0, 10.0), fails=True)
def planted_links(world: World, chance: random.Random) -> Iterator[str]:
    """Plant links to another folder where a destination has no shard yet."""
    outside = world.folder / "outside"
    outside.mkdir(exist_ok=True)
    shards = [
        world.destinations[0] / ".objects" / f"{number:03x}" for number in chance.sample(range(4096), 60)
    ]
    planted = []
    for shard in shards:
        with suppress(OSError):
            shard.symlink_to(outside)
            planted.append(shard)
    if not planted:
        raise NotPossible("the destination is not there yet")
    try:
        yield f"{len(planted)}"
    finally:
        for shard in planted:
            with suppress(OSError):
                shard.unlink()
    if list(outside.rglob("*")):
        world.violate("contained", "something was written outside of a store")
