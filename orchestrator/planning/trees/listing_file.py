"""
Listings of trees in files of this machine, so that the manifest is made of the very walk that was planned.

As for plans (`plan_file`), a file that is missing or damaged costs only time: the tree is walked again.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from snapferry.orchestrator.planning import plan_file
from snapferry.stores.address import Address
from snapferry.stores.backends.tree.listing import TreeListing

log = logging.getLogger(__name__)

# The most bytes of the listings that a process keeps in memory, but for the last one.
REMEMBERED_BYTES: Final = 64 * 1024 * 1024

_remembered: OrderedDict[tuple[str, str], TreeListing] = OrderedDict()


def save(job_id: str, listing: TreeListing) -> None:
    """Keep the listing of a job in memory, and write it to a file. Never raises OSError."""
    digest = listing.digest()
    _remember(job_id, digest, listing)
    path = _path(job_id, digest)
    if path is None:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:
            file.write(listing.text)
        temporary.rename(path)
    except OSError as error:
        log.warning("cannot write the listing of job %s to %s: %s", job_id, path.parent, error)
        with suppress(OSError):
            temporary.unlink()


def load(job_id: str, digest: Address) -> TreeListing | None:
    """Return the listing of a job with this *digest*, None if it is missing or damaged."""
    if (found := _remembered.get((job_id, digest))) is not None:
        return found
    path = _path(job_id, digest)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        os.utime(path)
    except (OSError, ValueError):
        return None
    if blake3(mapped).hexdigest() != digest:
        return None
    return _remember(job_id, digest, TreeListing(mapped))


def forget(job_id: str) -> None:
    """Forget the listing of a job that is in memory. `plan_file.forget` removes its file."""
    for key in [key for key in _remembered if key[0] == job_id]:
        del _remembered[key]


def _remember(job_id: str, digest: Address, listing: TreeListing) -> TreeListing:
    _remembered[job_id, digest] = listing
    _remembered.move_to_end((job_id, digest))
    while len(_remembered) > 1 and sum(len(one.text) for one in _remembered.values()) > REMEMBERED_BYTES:
        _remembered.popitem(last=False)
    return listing


def _path(job_id: str, digest: Address) -> Path | None:
    return plan_file.path_of(job_id, f"tree-{digest}")
