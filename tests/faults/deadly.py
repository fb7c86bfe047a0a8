"""A plug-in scheme, ``deadly:///path``: a directory of which the objects named in ``/path/deadly`` kill the process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.streams import OpenReader
from snapferry.stores.urls import Opening, StoreKind, StoreURL
from tests.faults.backends import Around

# Python for the start of a process that is to know the scheme.
KNOWS = "from snapferry.stores.urls import register; from tests.faults.deadly import KIND; register(KIND)\n"


class Deadly(Around):
    """Kills the process when an object is read whose key is in the list; notes each death in a file."""

    def __init__(self, root: Path) -> None:
        super().__init__(DirectoryBackend(str(root)))
        self._keys = set((root / "deadly").read_text().split())
        self._deaths = root / "deaths"

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        if key in self._keys:
            with self._deaths.open("a") as deaths:
                deaths.write(f"{key}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.open(key, size_hint=size_hint)


def opened(url: StoreURL, opening: Opening) -> Backend:
    """Open a store of the scheme."""
    return Deadly(Path(url.location))


KIND = StoreKind("deadly", open=opened, is_local=True)
