"""
Pull a batch of files: write those into a tree that are not right there.

The objects of such a batch are files, known by the digests of their paths. A batch may be pulled twice, also at the
same time: a file that is right is left alone, and any other is replaced in one step by the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import Final, Unpack

from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.pools.files import commit_files, stage_file, stage_files
from snapferry.stores.pools.together import in_runs
from snapferry.stores.runtime.containment import contained
from snapferry.stores.stream_store import FileTarget, Staged, StreamStore
from snapferry.stores.streams import Upload
from snapferry.workers.outcome import OVER_BUDGET, BatchOutcome

from .batch import copy_batch
from .interfaces import BatchOptions, OutageDetector, Progress

# Files that become visible together, after one sync.
FILES_TOGETHER: Final = 512


@dataclass(frozen=True)
class Pulling:
    """
    Pulls *files*: the digest of a path -> the file there.

    *target_of* returns the tree of a destination.
    """

    files: Mapping[Address, TreeEntry]
    target_of: Callable[[StreamStore], FileTarget]

    def run(
        self,
        source: StreamStore,
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchOutcome:
        """As `copy_batch`, for files. A file counts as present if its bytes were right; they were read."""
        tree = _FilesOfBatch(self.target_of(destination), self.files)
        outages = options.get("outages")
        if outages is not None:
            options["outages"] = _ObjectsOfFiles(outages, self.files)
        try:
            outcome = copy_batch(source, tree, objects, progress, **options)
        finally:
            tree.abort_rest()
        outcome.failures = [
            failure
            if failure.error == OVER_BUDGET
            else replace(failure, detail=f"./{self.files[failure.address].path}: {failure.detail}")
            for failure in outcome.failures
        ]
        return outcome


@dataclass(frozen=True)
class _ObjectsOfFiles:
    """Tells *outages* the objects of the files that were pulled: those are what the source holds."""

    outages: OutageDetector
    files: Mapping[Address, TreeEntry]

    def succeeded(self, address: Address, *holders: str) -> None:
        self.outages.succeeded(self.files[address].address, *holders)

    def failed(self, error: StoreError) -> None:
        self.outages.failed(error)


class _FilesOfBatch:
    """
    The tree *target* as the destination of a copy, whose objects are *files*.

    An object that several files of a batch have is read from the source once.
    """

    def __init__(self, target: FileTarget, files: Mapping[Address, TreeEntry]) -> None:
        self.label = target.label
        self.concurrency = 1
        self.sends_many = None
        self.commits_together = FILES_TOGETHER
        self.confirmed: dict[str, int] = {}
        self._target = target
        self._files = files
        self._lock = Lock()
        # Object -> the files that need it, and its lock; empty where no two files of the batch need the same.
        self._together: dict[Address, list[Address]] = {}
        self._locks: dict[Address, Lock] = {}
        # Files of `_together` that are staged, and the uploads of those that nobody asked for yet.
        self._begun: set[Address] = set()
        self._staged: dict[Address, Upload] = {}

    @property
    def may_wait(self) -> bool:
        return self._target.may_wait

    def objects_needed(self, addresses: Iterable[str]) -> list[Address]:
        files = list(map(Address, addresses))
        with contained(self.label):
            are_right = list(self._target.are_right(map(self._files.__getitem__, files)))
        needed = [file for file, is_right in zip(files, are_right, strict=True) if not is_right]
        if not self._together and len({self._files[file].address for file in needed}) < len(needed):
            for file in needed:
                self._together.setdefault(self._files[file].address, []).append(file)
        return needed

    def has_object(self, address: str) -> bool:
        with contained(self.label, address):
            return self._target.is_right(self._files[Address(address)])

    def stage_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> tuple[Upload, int]:
        file = self._files[address]
        together = self._together.get(file.address, [])
        if len(together) < 2:
            return stage_file(source, self._target, file, on_bytes)
        with self._lock:
            lock = self._locks.setdefault(file.address, Lock())
        with lock:
            if address in self._staged:
                return self._staged.pop(address), 0
            upload, length = stage_file(source, self._target, file, on_bytes)
            self._begun.add(address)
            try:
                others = (other for other in together if other not in self._begun)
                for other in list(islice(others, FILES_TOGETHER)):
                    with contained(self.label, f"./{self._files[other].path}"):
                        self._staged[other] = self._target.duplicate(upload, self._files[other])
                    self._begun.add(other)
            except BaseException:
                upload.abort()
                raise
            return upload, length

    def stage_objects(
        self, source: StreamStore, addresses: Sequence[Address], size_hints: Sequence[int]
    ) -> dict[Address, tuple[Upload, int]]:
        staged: dict[Address, tuple[Upload, int]] = {}
        if self._target.linked:
            return staged
        # Files with the same bytes are staged by themselves, so that their object is read once.
        together = self._together
        alone = addresses
        if together:
            alone = [each for each in addresses if len(together.get(self._files[each].address, ())) < 2]
        try:
            with contained(self.label):
                files = [self._files[address] for address in alone]
                for at, upload, length in stage_files(source, self._target, files):
                    staged[alone[at]] = upload, length
        except BaseException:
            for upload, _ in staged.values():
                upload.abort()
            raise
        return staged

    def stage_each(
        self, source: StreamStore, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[Staged]:
        if self._target.linked:
            return
        # The object of a file -> the file. Files with the same bytes are staged by themselves.
        files: dict[Address, Address] = {}

        def wanted() -> Iterator[tuple[Address, int]]:
            for file, _ in objects:
                entry = self._files[file]
                if len(self._together.get(entry.address, ())) < 2:
                    files[entry.address] = file
                    yield entry.address, entry.size

        with (
            contained(self.label),
            closing(source.fetch_each(wanted(), most)) as fetched,
        ):
            for some in in_runs(fetched):
                found = [files[address] for address, _ in some]
                uploads = self._target.upload_many(
                    [self._files[file] for file in found], [data for _, data in some]
                )
                # The rest failed.
                yield {
                    file: (upload, len(data))
                    for file, upload, (_, data) in zip(found, uploads, some, strict=False)
                }

    def copy_each(
        self, source: StreamStore, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[tuple[Address, int]]:
        yield from ()

    def copy_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> int:
        upload, length = self.stage_object(source, address, size_hint=size_hint, on_bytes=on_bytes)
        commit_files(self._target, [upload])
        return length

    def commit_staged(self, uploads: Sequence[Upload]) -> None:
        commit_files(self._target, uploads)

    def abort_unfinished(self, objects: Mapping[Address, int], *, dead_only: bool = False) -> None:
        """Do nothing: the end of the job removes temporary files of dead writers."""

    def flush(self) -> None:
        with contained(self.label):
            self._target.flush()

    def abort_rest(self) -> None:
        """Drop the uploads that nobody asked for."""
        for upload in self._staged.values():
            upload.abort()
        self._staged.clear()
