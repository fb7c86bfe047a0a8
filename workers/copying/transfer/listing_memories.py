"""What this process remembers of listings of destinations, for batches of a job whose objects come in no order."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from snapferry.stores.pools.listing_memory import ListingMemory

MOST_MEMORIES: Final = 2
"""Jobs whose listings a process remembers at the same time, up to 26 MB each (`ListingMemory`)."""


@lru_cache(MOST_MEMORIES)
def listing_memory(job_id: str, url: str, objects_url: str | None) -> ListingMemory:
    """Return what is remembered for a job of its destination with these URLs."""
    return ListingMemory()
