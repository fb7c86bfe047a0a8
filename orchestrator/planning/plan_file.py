"""
Plans in files of this machine, so that one orchestrator process need not compute what another has.

A file is mapped into memory, not read: a plan of millions of objects is there
once for all processes, and goes when memory is short. A plan can be computed
again at any time, so a file that is missing, damaged, or cannot be written costs
time and nothing else.

Files lie in a folder of the temporary directory that only this user can enter.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from snapferry.stores.address import DIGEST_BYTES
from snapferry.workers.private_folder import private_folder

from .plan import Group, Plan, SnapshotPlan

log = logging.getLogger(__name__)

_MAGIC: Final = b"snapferry plan 1"
_HEADER: Final = struct.Struct("<16sQ")

# A file that was not used for so long is nobody's.
STALE_AFTER_S: Final = 24 * 3600.0


def save(job_id: str, key: str, plan: Plan) -> Plan:
    """
    File the plan of a job; return it, mapped from its file if that could be written.

    *key* says what the plan was made of: `load` finds it under the same job and key alone. Never raises OSError.
    """
    folder = _folder()
    if folder is None:
        return plan
    _sweep(folder)
    temporary = folder / f".{job_id}.{os.getpid()}"
    try:
        with temporary.open("xb") as file:
            hasher = blake3()
            for part in _parts(plan):
                hasher.update(part)
                file.write(part)
            file.write(hasher.digest())
        temporary.rename(_path(folder, job_id, key))
    except OSError as error:
        log.warning("job %s: its plan is not kept in %s: %s", job_id, folder, error)
        with suppress(OSError):
            temporary.unlink()
        return plan
    return _map(_path(folder, job_id, key), verify=False) or plan


def load(job_id: str, key: str) -> Plan | None:
    """Return the plan that was filed, None where there is none that is intact."""
    folder = _folder()
    return _map(_path(folder, job_id, key), verify=True) if folder is not None else None


def forget(job_id: str) -> None:
    """Remove the plans of a job. What is mapped from them stays good."""
    folder = _folder()
    if folder is not None:
        for path in folder.glob(f"{job_id}-*.plan"):
            with suppress(OSError):
                path.unlink()


def _folder() -> Path | None:
    return private_folder("snapferry-plans")


def _path(folder: Path, job_id: str, key: str) -> Path:
    return folder / f"{job_id}-{key[:16]}.plan"


def _sweep(folder: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                if time.time() - entry.stat().st_mtime > STALE_AFTER_S:
                    os.unlink(entry)


def _parts(plan: Plan) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the pieces of a file: what is counted in eights of bytes first, so that it can be mapped as such."""
    header: dict[str, Any] = {
        "groups": [
            [group.snapshots, group.batches.stop, group.positions.stop, group.named] for group in plan.groups
        ],
        "snapshots": [[index, *found] for index, found in plan.snapshots.items()],
        "objects": plan.objects,
        "batches": plan.batches,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield _HEADER.pack(_MAGIC, len(text))
    yield text
    yield memoryview(plan.firsts).cast("B")
    yield memoryview(plan.sizes).cast("B")
    yield memoryview(plan.digests).cast("B")
    yield memoryview(plan.owners).cast("B")


def _map(path: Path, *, verify: bool) -> Plan | None:
    try:
        with path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        os.utime(path)
    except (OSError, ValueError):
        return None
    end = len(mapped) - DIGEST_BYTES
    if end < _HEADER.size or (verify and blake3(mapped[:end]).digest() != mapped[end:]):
        return None
    magic, length = _HEADER.unpack_from(mapped)
    if magic != _MAGIC:
        return None
    at = _HEADER.size + length
    header = json.loads(bytes(mapped[_HEADER.size : at]))
    objects, batches = header["objects"], header["batches"]
    firsts, at = mapped[at : at + 8 * batches], at + 8 * batches
    sizes, at = mapped[at : at + 8 * objects], at + 8 * objects
    digests, at = mapped[at : at + DIGEST_BYTES * objects], at + DIGEST_BYTES * objects
    owners = mapped[at : at + 4 * objects]
    groups: list[Group] = []
    batch = place = 0
    for number, (snapshots, batch_end, place_end, asked) in enumerate(header["groups"]):
        groups.append(
            Group(number, tuple(snapshots), range(batch, batch_end), range(place, place_end), asked)
        )
        batch, place = batch_end, place_end
    snapshots = {index: SnapshotPlan(*found) for index, *found in header["snapshots"]}
    return Plan(groups, snapshots, digests, sizes.cast("Q"), owners.cast("I"), firsts.cast("Q"))
