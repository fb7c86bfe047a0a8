"""
Sample stores. The same bytes every time.

Small files are filed by the real package's own push, so the source is a store
as it writes them. An object that is too large for its memory is filed by ours.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Final

from stores.hashing import CHUNK_BYTES
from stores.manifest import Entry, render, snapshot_id
from stores.urls import open_store

from . import commands
from .measure import CommandFailed

FILES_PER_FOLDER: Final = 1000
_SEED: Final = 20


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


def huge_store(work: Path, store: Path, *, size_bytes: int) -> str:
    """Make a store at *store* with one object of *size_bytes* bytes; return the snapshot id."""
    from blake3 import blake3

    file = work / "huge"
    hasher = blake3()
    numbers = random.Random(_SEED)
    try:
        with file.open("wb") as written:
            for at in range(0, size_bytes, CHUNK_BYTES):
                chunk = numbers.randbytes(min(CHUNK_BYTES, size_bytes - at))
                hasher.update(chunk)
                written.write(chunk)
        address = hasher.hexdigest()
        destination = open_store(str(store))
        target = store / ".objects" / address[:3] / address[3:6] / address[6:9] / address[9:]
        target.parent.mkdir(parents=True)
        file.rename(target)
        manifest = render(
            [Entry("D", "755", blake3(address.encode()).hexdigest(), size_bytes, "./"),
             Entry("F", "644", address, size_bytes, "./huge")]
        )  # fmt: skip
        snapshot = snapshot_id(manifest)
        destination.put_manifest(snapshot, manifest)
        return snapshot
    finally:
        file.unlink(missing_ok=True)
