"""
Plans in files of this machine, so that one orchestrator process uses the plan that another computed.

A file is mapped into memory, not read. So all processes share one copy of a plan of millions of objects, and the
kernel can drop it when memory is short. A plan can be computed again at any time, so a file that is missing, damaged,
or cannot be written costs only time.

The files are in a folder of the temporary directory that only this user can enter.
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

from .plan import Group, Lines, Plan, SnapshotPlan

log = logging.getLogger(__name__)

_MAGIC: Final = b"snapferry plan 1"
_HEADER: Final = struct.Struct("<16sQ")

# Seconds after which an unused file belongs to no running job.
STALE_AFTER_S: Final = 24 * 3600.0


def save(job_id: str, key: str, plan: Plan) -> Plan:
    """
    Write the plan of a job to a file; return the plan, mapped from the file if it could be written.

    *key* identifies all that the plan follows from; `load` finds the plan only by the same job and key. Never raises
    OSError.
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
        log.warning("cannot write the plan of job %s to %s: %s", job_id, folder, error)
        with suppress(OSError):
            temporary.unlink()
        return plan
    return _map(_path(folder, job_id, key), verify=False) or plan


def load(job_id: str, key: str) -> Plan | None:
    """Return the plan that was saved, None if it is missing or damaged."""
    folder = _folder()
    return _map(_path(folder, job_id, key), verify=True) if folder is not None else None


def forget(job_id: str) -> None:
    """Remove the files of a job's plans. Plans that are mapped from them stay valid."""
    folder = _folder()
    if folder is not None:
        for path in folder.glob(f"{job_id}-*.plan"):
            with suppress(OSError):
                path.unlink()


def _folder() -> Path | None:
    return private_folder("snapferry-plans")


def path_of(job_id: str, key: str) -> Path | None:
    """
    Return where a file of a job is kept that *key* identifies, None where this machine keeps none.

    `forget` removes it, and so does time.
    """
    folder = _folder()
    return None if folder is None else _path(folder, job_id, key)


def _path(folder: Path, job_id: str, key: str) -> Path:
    return folder / f"{job_id}-{key[:32]}.plan"


def _sweep(folder: Path) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                if time.time() - entry.stat().st_mtime > STALE_AFTER_S:
                    os.unlink(entry)


def _parts(plan: Plan) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the parts of a file: those of 8-byte entries first, so that they are aligned when mapped."""
    header: dict[str, Any] = {
        "groups": [
            [group.snapshots, group.batches.stop, group.positions.stop, group.named] for group in plan.groups
        ],
        "snapshots": [[index, *found] for index, found in plan.snapshots.items()],
        "objects": plan.objects,
        "batches": plan.batches,
        "line_bytes": None if plan.lines is None else len(plan.lines.text),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield _HEADER.pack(_MAGIC, len(text))
    yield text
    yield memoryview(plan.firsts).cast("B")
    yield memoryview(plan.sizes).cast("B")
    if plan.lines is not None:
        yield memoryview(plan.lines.ends).cast("B")
    yield memoryview(plan.digests).cast("B")
    yield memoryview(plan.owners).cast("B")
    if plan.lines is not None:
        yield plan.lines.text


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
    line_bytes = header.get("line_bytes")
    ends = mapped[at : at + 8 * objects] if line_bytes is not None else None
    at += 0 if ends is None else 8 * objects
    digests, at = mapped[at : at + DIGEST_BYTES * objects], at + DIGEST_BYTES * objects
    owners, at = mapped[at : at + 4 * objects], at + 4 * objects
    lines = None if ends is None else Lines(ends.cast("Q"), mapped[at : at + line_bytes])
    groups: list[Group] = []
    batch = position = 0
    for number, (snapshots, batch_end, position_end, named) in enumerate(header["groups"]):
        groups.append(
            Group(number, tuple(snapshots), range(batch, batch_end), range(position, position_end), named)
        )
        batch, position = batch_end, position_end
    snapshots = {index: SnapshotPlan(*found) for index, *found in header["snapshots"]}
    return Plan(groups, snapshots, digests, sizes.cast("Q"), owners.cast("I"), firsts.cast("Q"), lines)
