"""
The other side: one process that does one thing with the real `snapdir` package.

    python -m benchmarks.peer push DIRECTORY STORE
    python -m benchmarks.peer pull ID STORE DIRECTORY
    python -m benchmarks.peer verify ID STORE
    python -m benchmarks.peer sync ID FROM TO
    python -m benchmarks.peer sync-flushed ID FROM TO
    python -m benchmarks.peer sync-each IDS FROM TO TIMES
    python -m benchmarks.peer import

The package can crash while the interpreter ends, after its work is done. So
the last thing said is a marker, and who runs this looks for it. What `push`
made is in the words after it. `sync-flushed` has everything on the disk by
its end, as far as a flush of all file systems does that. `sync-each` takes the snapshots from the file
IDS, one a line, and writes the seconds that each took to the file TIMES.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

import snapdir

DONE = "peer-is-done"


async def push(directory: str, store: str) -> str:
    return str(await snapdir.push(directory, snapdir.StoreUri(store)))


async def pull(snapshot: str, store: str, directory: str) -> str:
    await snapdir.pull(snapdir.SnapshotId(snapshot), snapdir.StoreUri(store), directory)
    return snapshot


async def verify(snapshot: str, store: str) -> str:
    await snapdir.verify(snapdir.SnapshotId(snapshot), snapdir.StoreUri(store))
    return snapshot


async def sync(snapshot: str, source: str, destination: str) -> str:
    await snapdir.sync(snapdir.SnapshotId(snapshot), snapdir.StoreUri(source), snapdir.StoreUri(destination))
    return snapshot


async def sync_each(snapshots: list[str], source: str, destination: str) -> list[float]:
    took = []
    for snapshot in snapshots:
        started = time.monotonic()
        await sync(snapshot, source, destination)
        took.append(time.monotonic() - started)
    return took


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    match sys.argv[1:]:
        case ["push", directory, store]:
            said = asyncio.run(push(directory, store))
        case ["pull", snapshot, store, directory]:
            said = asyncio.run(pull(snapshot, store, directory))
        case ["verify", snapshot, store]:
            said = asyncio.run(verify(snapshot, store))
        case ["sync", snapshot, source, destination]:
            said = asyncio.run(sync(snapshot, source, destination))
        case ["sync-flushed", snapshot, source, destination]:
            said = asyncio.run(sync(snapshot, source, destination))
            os.sync()
        case ["sync-each", ids, source, destination, times]:
            took = asyncio.run(sync_each(Path(ids).read_text().split(), source, destination))
            Path(times).write_text("".join(f"{seconds}\n" for seconds in took))
            said = ""
        case ["import"]:
            said = ""
        case _:
            sys.exit(__doc__)
    print(DONE, said, flush=True)


if __name__ == "__main__":
    main()
