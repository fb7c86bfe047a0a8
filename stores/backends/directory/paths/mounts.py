"""The mount that a path is on, as Linux lists it."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import Final, NamedTuple

_escaped = re.compile(r"\\([0-7]{3})")

_NETWORK: Final = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "glusterfs", "lustre", "gpfs", "afs")


class Mount(NamedTuple):
    """A file system, mounted at *place*."""

    place: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether calls wait for another machine. With FUSE they wait for another process, and often for both."""
        return self.kind.startswith(_NETWORK)


def mount_of(path: str) -> Mount | None:
    """Return the mount that contains *path*, which need not exist; None on other systems. Raises OSError."""
    if not sys.platform.startswith("linux"):
        return None
    path = os.path.realpath(path)
    best = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            place = _escaped.sub(lambda found: chr(int(found[1], 8)), head.split(" ")[4])
            inside = path == place or path.startswith(place.rstrip("/") + "/")
            # The last of several mounts on one place counts.
            if inside and (best is None or len(place) >= len(best.place)):
                best = Mount(place, tail.split(" ")[0])
    return best


def on_network(path: str) -> bool:
    """Return whether *path* is on a network file system, as far as that can be told."""
    with suppress(OSError):
        mount = mount_of(path)
        return mount is not None and mount.is_network
    return False
