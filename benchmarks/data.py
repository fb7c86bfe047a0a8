"""
Sample stores. The same bytes every time.

Small files are filed by the real package's own push, so the source is a store
as it writes them. An object that is too large for its memory is filed by ours,
and so are snapshots too many for it: the peer would hash every tree anew.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from snapferry.stores.access import TRUSTED
from snapferry.stores.address import Address, SnapshotId, manifest_key, object_key
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.opening import open_store

from . import commands
from .measure import CommandFailed

FILES_PER_FOLDER: Final = 1000
_SEED: Final = 20
_SOLID_BYTES: Final = 1_000_000

# The oldest manifest of a store that is made here, in seconds since the epoch.
_EPOCH: Final = 1_700_000_000


def make_tree(root: Path, *, files: int, size_bytes: int) -> None:
    """Fill *root* with *files* files of *size_bytes* bytes each, no two alike."""
    common = random.Random(_SEED).randbytes(size_bytes - 8)
    for number in range(files):
        folder = root / f"{number // FILES_PER_FOLDER:04}"
        if number % FILES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:08}").write_bytes(number.to_bytes(8, "big") + common)


def pushed_store(work: Path, store: Path, *, files: int, size_bytes: int) -> str:
    """Make a store at *store* by the real package's push; return the snapshot id. *work* is for what is dropped."""
    tree, cache = work / "tree", work / "cache"
    try:
        make_tree(tree, files=files, size_bytes=size_bytes)
        command = commands.peer("push", str(tree), f"file://{store}", cache=cache)
        done = subprocess.run(
            command.arguments, env=dict(command.environment), capture_output=True, text=True, check=False
        )
        _, found, said = done.stdout.partition(command.marker)
        if not found:
            raise CommandFailed(f"the sample store was not made: {done.stderr[-2000:]}")
        return said.strip()
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)


def sparse_store(work: Path, store: Path, *, size_bytes: int) -> tuple[SnapshotId, Address]:
    """Make a store at *store* with one object, of a `sparse_tree`; return the snapshot id and the object's address."""
    snapshot, (address,) = sparse_objects(work, store, files=1, size_bytes=size_bytes)
    return snapshot, address


def sparse_objects(
    work: Path, store: Path, *, files: int, size_bytes: int
) -> tuple[SnapshotId, list[Address]]:
    """
    Make a store at *store* with the files of a `sparse_tree` as objects; return the snapshot id and their addresses.

    The addresses have the order of the files' names. *work* is for what is dropped.
    """
    tree = work / "sparse"
    try:
        sparse_tree(tree, files=files, size_bytes=size_bytes)
        addresses, entries = [], []
        for file in sorted(tree.iterdir()):
            address = address_of(file)
            target = store / object_key(address)
            target.parent.mkdir(parents=True)
            file.rename(target)
            addresses.append(address)
            entries.append(Entry("F", "644", address, size_bytes, f"./{file.name}"))
        manifest = render([_folder("./", entries), *entries])
        snapshot = snapshot_id(manifest)
        open_store(str(store), access=TRUSTED).put_manifest(snapshot, manifest)
        return snapshot, addresses
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def sparse_tree(root: Path, *, files: int, size_bytes: int) -> None:
    """
    Fill *root* with *files* files of *size_bytes* bytes each, no two alike.

    Nearly all of each is a hole: a megabyte at its start, one in its middle and one at its end are not.
    """
    numbers = random.Random(_SEED)
    piece = min(_SOLID_BYTES, size_bytes // 4)
    root.mkdir(parents=True)
    for number in range(files):
        with (root / f"huge-{number}").open("wb") as file:
            for at in (0, size_bytes // 2, size_bytes - piece):
                file.seek(at)
                file.write(numbers.randbytes(piece))


def address_of(file: Path) -> Address:
    """Return the digest of *file*, read in pieces."""
    from blake3 import blake3

    hasher = blake3(max_threads=blake3.AUTO)
    with file.open("rb", buffering=0) as read:
        while block := read.read(16 * CHUNK_BYTES):
            hasher.update(block)
    return Address(hasher.hexdigest())


@dataclass(frozen=True)
class Shared:
    """Snapshots that share most of their objects: each has *common* ones and *own* ones of its own."""

    snapshots: int
    common: int
    own: int
    size_bytes: int = 256

    @property
    def objects(self) -> int:
        """How many distinct objects there are."""
        return self.common + self.snapshots * self.own


def shared_store(store: Path, shape: Shared) -> list[SnapshotId]:
    """Make a store at *store*; return the ids of its snapshots, from the oldest to the newest by their times."""
    filed = _Filing(store)
    rest = random.Random(_SEED).randbytes(shape.size_bytes - 8)

    def files(folder: str, numbers: range) -> list[Entry]:
        entries = []
        for number in numbers:
            data = number.to_bytes(8, "big") + rest
            address = digest(data)
            filed.write(object_key(address), data)
            entries.append(Entry("F", "644", address, len(data), f"./{folder}/{number:08}"))
        return entries

    common = files("common", range(shape.common))
    common_folder = _folder("./common/", common)
    # The same in every manifest, and most of it.
    common_text = render([common_folder, *common])
    ids = []
    for number in range(shape.snapshots):
        first = shape.common + number * shape.own
        own = files("own", range(first, first + shape.own))
        own_folder = _folder("./own/", own)
        root = _folder("./", [common_folder, own_folder])
        manifest = render([root]) + common_text + render([own_folder, *own])
        ids.append(SnapshotId(digest(manifest)))
        # A second apart: the order of the newest first is the same every time.
        filed.write(manifest_key(ids[-1]), manifest, modified=_EPOCH + number)
    return ids


class _Filing:
    """Writes the files of a new store that nobody reads yet, without the care that a store of `stores` takes."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._made: set[str] = set()

    def write(self, key: str, data: bytes, *, modified: int = 0) -> None:
        path = f"{self._root}/{key}"
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        with open(path, "wb", buffering=0) as file:
            file.write(data)
        if modified:
            os.utime(path, (modified, modified))


def _folder(path: str, members: list[Entry]) -> Entry:
    checksums = sorted({member.checksum for member in members})
    return Entry(
        "D", "755", digest("".join(checksums).encode()), sum(member.size for member in members), path
    )
