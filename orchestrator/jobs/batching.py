"""Into how many batches the objects of a job are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.messages import GROUP_BATCHES, JobSpec

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


def group_batches(spec: JobSpec, processes: Callable[[], int]) -> int:
    """
    Return into how many batches to cut a large group of objects: `JobSpec.group_batches`.

    Between directories, as few as the *processes* of the fleet can share. *processes* is called only then; 0 means that
    their number is not known.
    """
    if not between_directories(spec) or not (number := processes()):
        return GROUP_BATCHES
    return min(GROUP_BATCHES, BATCHES_OF_A_PROCESS * number)
