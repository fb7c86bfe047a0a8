"""
The files of a directory tree, by their paths.

A tree holds no objects and no manifests: its files are read by path, and become objects of a store.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapferry.stores.backend import Capabilities
from snapferry.stores.backends.directory.native.reading import read_in_slices
from snapferry.stores.backends.directory.paths.mounts import on_network
from snapferry.stores.features import FetchesMany
from snapferry.stores.streams import OpenReader

from .only_reads import OnlyReads
from .place import TreePlace
from .reader import TreeReader, read_still
from .writing.folders import TreeFolders


class TreeBackend(OnlyReads, FetchesMany):
    """
    The files of *place*. A key is a path as a manifest has it, which begins with ``./``.

    With *follow*, which may be set at any time, links are followed.
    """

    refusal = "is a directory tree, not a store; only its files can be read"

    def __init__(self, place: TreePlace, *, follow: bool = True) -> None:
        self.place = place
        self.follow = follow
        self.label = place.label
        self.capabilities = Capabilities(concurrency=1, pages_listings=False)

    @property
    def may_wait(self) -> bool:
        """As `Backend.may_wait`: not on a local file system."""
        return on_network(self.place.path)

    def check(self, *, for_writing: bool) -> None:
        if for_writing:
            self._folders().check()
        else:
            self.place.root()

    def prepare(self) -> None:
        self._folders().make_root()

    def _folders(self) -> TreeFolders:
        return TreeFolders(self.place.path, links=self.place.links)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        path = key.removeprefix("./")
        return TreeReader(self.place, path, *self.place.open_file(path, follow=self.follow))

    def fetch_many(self, keys: Sequence[str], size_hints: Sequence[int]) -> list[bytes | None]:
        """As `FetchesMany`: a file that is a link, or that changes while it is read, is left to `open`."""
        paths = [key.removeprefix("./") for key in keys]
        return read_in_slices(self.place.root(), paths, size_hints, read_still, still=True)
