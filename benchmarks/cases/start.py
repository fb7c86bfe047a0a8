"""What a whole command needs before it copies anything: beside it, in the same rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .. import commands, data
from ..rounds import Start

FILES: Final = 10


def start_in(folder: Path, name: str = "start") -> Start:
    """Return the sync of ten files between two directories in *folder*/*name*, as in the case `startup`."""
    own = folder / name
    source, made = own / "source", own / "copy"
    own.mkdir()
    snapshot = data.pushed_store(own, source, files=FILES, size_bytes=4096)
    return Start(commands.ours_sync(snapshot, f"file://{source}", f"file://{made}"), made)
