"""How the objects of a job are cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.messages import GROUP_BATCHES, NEWEST_RULES, Action, JobSpec

BATCHES_OF_A_PROCESS: Final = 2
"""More than one, so that a faster process can take over from a slower one."""

LOCAL_BATCH_OBJECTS: Final = 5000
"""Objects in a batch between directories, at most, unless the settings say otherwise."""


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


def batching(spec: JobSpec, processes: Callable[[], int], chosen: Collection[str]) -> dict[str, Any]:
    """
    Return the fields of a request that say how the job is cut, for workers that have so many *processes* together.

    A job between directories has as few batches as they can share. They are larger, unless their size is one of the
    fields that the request or the settings have *chosen*. There, and for files, the newest of `JobSpec.rules` save
    time.

    *processes* is called only for such jobs. It returns 0 if the number is not known: there are no workers, or one is
    of an earlier version, which knows the first rules alone.
    """
    here = between_directories(spec)
    saves_time = here or spec.action in (Action.PUSH, Action.PULL)
    if not saves_time or not (number := processes()):
        return {"group_batches": GROUP_BATCHES, "rules": 1}
    if not here:
        return {"group_batches": GROUP_BATCHES, "rules": NEWEST_RULES}
    fields = {"group_batches": min(GROUP_BATCHES, BATCHES_OF_A_PROCESS * number), "rules": NEWEST_RULES}
    return fields if "batch_objects" in chosen else fields | {"batch_objects": LOCAL_BATCH_OBJECTS}
