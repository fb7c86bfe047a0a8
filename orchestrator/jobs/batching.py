"""How the objects of a job are cut into batches."""

from __future__ import annotations

from typing import Any, Final

from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.messages import GROUP_BATCHES, NEWEST_RULES, Action, JobSpec

BATCHES_OF_A_PROCESS: Final = 3
"""Enough that no process waits long for the last batch of another."""


def between_directories(spec: JobSpec) -> bool:
    """
    Return whether all stores of a job are directories.

    There an object takes some microseconds, and a batch some milliseconds besides, in which its process waits.
    """
    stores = (spec.source, spec.destination, *spec.more_sources)
    try:
        return all(
            url.kind.is_local for store in stores for url in (store.parsed, store.parsed_objects) if url
        )
    except InvalidStoreURL:
        # Only the fleet knows whether it can open the store.
        return False


def batching(spec: JobSpec, processes: int) -> dict[str, Any]:
    """
    Return the fields of a request that say how the job is cut for workers that have *processes* together.

    Between directories it has as few batches as they can share. There, and for files, the newest of `JobSpec.rules`
    save time. 0: the number of processes is not known, because there are none, or one of them is of an earlier version
    and knows the first rules alone.
    """
    if not processes:
        return {"group_batches": GROUP_BATCHES, "rules": 1}
    here = between_directories(spec)
    most = BATCHES_OF_A_PROCESS * processes if here else GROUP_BATCHES
    has_files = spec.action in (Action.PUSH, Action.PULL)
    return {"group_batches": min(GROUP_BATCHES, most), "rules": NEWEST_RULES if here or has_files else 1}
