"""
The copying alone: `snapferry.workers.copying.transfer.copy_batch` in worker processes, without Celery, Redis and
orchestrator.

    python -m benchmarks.direct SNAPSHOT FROM TO --processes N --batch-objects N --jobs N

The same processes, objects in flight and batches as a fleet of so many workers
would have. It prints the seconds from when all processes are up and have
their imports until the last batch is done; the manifest is not written.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from typing import Any

from snapferry.stores.access import TRUSTED
from snapferry.stores.address import Address
from snapferry.stores.opening import open_store
from snapferry.workers.copying.transfer import copy_batch

Batch = dict[Address, int]


class NoProgress:
    """Counts nothing."""

    def begin(self, needed: list[Address]) -> None:
        """Note nothing."""

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        """Note nothing."""


def batches(objects: Batch, most: int) -> list[Batch]:
    """Return *objects* in sorted batches of at most *most*, as a plan has them where bytes are no limit."""
    addresses = sorted(objects)
    return [
        {address: objects[address] for address in addresses[at : at + most]}
        for at in range(0, len(addresses), most)
    ]


def copy(
    work: Sequence[Batch], source: str, destination: str, *, processes: int, jobs: int
) -> tuple[float, int]:
    """Copy all of *work*; return the seconds it took, and how many objects were copied. Raises RuntimeError."""
    # What a store's client keeps in threads does not outlive a fork.
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    following = context.Value("i", 0)
    copied = context.Value("i", 0)
    parts = [
        context.Process(target=_work, args=(work, source, destination, jobs, ready, following, copied))
        for _ in range(processes)
    ]
    for part in parts:
        part.start()
    ready.wait()
    started = time.monotonic()
    for part in parts:
        part.join()
    seconds = time.monotonic() - started
    if any(part.exitcode for part in parts):
        raise RuntimeError("a process that copies without a queue failed, see above")
    return seconds, copied.value


def _work(
    work: Sequence[Batch],
    source: str,
    destination: str,
    jobs: int,
    ready: Barrier,
    following: Any,
    copied: Any,
) -> None:
    here, there = (open_store(url, access=TRUSTED) for url in (source, destination))
    ready.wait()
    while True:
        with following.get_lock():
            at = following.value
            following.value += 1
        if at >= len(work):
            return
        outcome = copy_batch(here, there, work[at], NoProgress(), concurrency=jobs)
        if outcome.failures:
            raise RuntimeError(f"an object was not copied: {outcome.failures[0]}")
        with copied.get_lock():
            copied.value += outcome.copied


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.direct")
    parser.add_argument("snapshot")
    parser.add_argument("source")
    parser.add_argument("destination")
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--batch-objects", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    options = parser.parse_args()
    with open_store(options.source, access=TRUSTED).read_manifest(options.snapshot) as manifest:
        objects = dict(manifest.objects())
    seconds, copied = copy(
        batches(objects, options.batch_objects),
        options.source,
        options.destination,
        processes=options.processes,
        jobs=options.jobs,
    )
    if copied != len(objects):
        raise RuntimeError(f"copied {copied} of {len(objects)} objects")
    print(seconds)


if __name__ == "__main__":
    main()
