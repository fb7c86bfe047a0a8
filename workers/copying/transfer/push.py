"""
Push a batch of files: read each, hash it, and bring those to the store that it lacks.

The objects of such a batch are files, known by the digests of their paths. What the files hash to is reported to the
ledger, once it is durable at the destination. A batch may be pushed twice, also at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Unpack

from snapferry.stores.address import Address
from snapferry.stores.backend import Backend
from snapferry.stores.backends.tree.objects import FileObjects, tree_of
from snapferry.stores.backends.tree.reading import PAUSES_S, FileRead, forget_all, read_file, read_files, wait
from snapferry.stores.errors import FileChanged, IntegrityError, StoreError, StoreNotFound
from snapferry.stores.pools.together import MOST_TOGETHER, SHORT_BYTES
from snapferry.stores.runtime.interruption import mark_as_owners
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Memory, StreamStore
from snapferry.workers.outcome import BatchOutcome, Failure

from .batch import copy_batch
from .interfaces import BatchOptions, CountsHashed, OutageDetector, Progress

FileDigests = Mapping[Address, tuple[Address, int]]
"""The digest of a path -> the address and the length in bytes of the file."""

# A file that changed between two readings of it.
_CHANGED = (FileChanged.__name__, IntegrityError.__name__)


@dataclass(frozen=True)
class Pushing:
    """
    Pushes the files at *paths*: the digest of a path -> the path.

    With *follow*, links are followed. *report* is given what the files hash to, when they are durable. *memory* answers
    for other batches of the job too, because each spreads over all addresses; None: the destination is asked afresh.
    """

    paths: Mapping[Address, str]
    follow: bool
    report: Callable[[FileDigests], None]
    memory: Memory | None = None

    def run(
        self,
        source: StreamStore,
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchOutcome:
        """
        As `copy_batch`, for files. A file counts as copied if its bytes were written, as present otherwise.

        A file that changes between two readings is read again a few times, then it fails.
        """
        tree = tree_of(source, follow=self.follow)
        work = _Work(tree, self.paths, objects, _PlannedProgress(progress, objects))
        memory = self.memory
        # An earlier run of this batch may have written objects that the memory calls absent.
        again = bool(options.get("abort_unfinished"))
        ask = (
            None
            if memory is None
            else partial(destination.objects_needed_of_many, memory=memory, again=again)
        )

        def copy(files: StreamStore, found: Mapping[Address, int]) -> BatchOutcome:
            outcome = copy_batch(files, destination, found, work.progress, ask=ask, **options)
            if memory is not None:
                memory.add(found.keys() - {failure.address for failure in outcome.failures})
            return outcome

        pending = list(objects)
        for pause in (*PAUSES_S, None):
            pending = work.push(pending, copy, options.get("outages"), again=pause is not None)
            if not pending or pause is None:
                break
            wait(pause)
        self.report(work.pushed)
        work.progress.settle_rest()
        outcome = work.outcome
        outcome.present = len(objects) - outcome.copied - len(outcome.failures)
        outcome.bytes_hashed = work.progress.bytes_hashed
        return outcome


@dataclass
class _Work:
    tree: Backend
    paths: Mapping[Address, str]
    sizes: Mapping[Address, int]
    progress: _PlannedProgress
    pushed: dict[Address, tuple[Address, int]] = field(default_factory=dict)
    # The bytes of files whose last reading the progress counted as such.
    hashed: dict[Address, int] = field(default_factory=dict)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)

    def push(
        self,
        files: list[Address],
        copy: Callable[[StreamStore, Mapping[Address, int]], BatchOutcome],
        outages: OutageDetector | None,
        *,
        again: bool,
    ) -> list[Address]:
        """Read *files* and *copy* them; with *again*, return those that changed meanwhile instead of failing them."""
        reads: dict[Address, FileRead] = {}
        try:
            for file in self._read_short(files, reads):
                self._read(file, reads, outages)
            return self._copy(reads, copy, again=again)
        finally:
            forget_all(reads.values())

    def _read_short(self, files: Sequence[Address], reads: dict[Address, FileRead]) -> list[Address]:
        """Read the short ones among *files* into *reads*; return those that must be read one by one."""
        short = [file for file in files if self.sizes[file] <= SHORT_BYTES]
        for first in range(0, len(short), MOST_TOGETHER):
            some = short[first : first + MOST_TOGETHER]
            sizes = [self.sizes[file] for file in some]
            try:
                found = read_files(self.tree, [self.paths[file] for file in some], sizes)
            except StoreError:
                break
            reads |= {file: read for file, read in zip(some, found, strict=True) if read is not None}
        return [file for file in files if file not in reads]

    def _read(self, file: Address, reads: dict[Address, FileRead], outages: OutageDetector | None) -> None:
        try:
            reads[file] = read = read_file(self.tree, self.paths[file], on_bytes=self.progress.hashed)
            self.hashed[file] = read.length
        except StoreNotFound:
            # The tree itself is not there.
            raise
        except StoreError as error:
            if outages is not None:
                outages.failed(error)
            self._fail(file, Failure.of(file, error))

    def _copy(
        self,
        reads: Mapping[Address, FileRead],
        copy: Callable[[StreamStore, Mapping[Address, int]], BatchOutcome],
        *,
        again: bool,
    ) -> list[Address]:
        by_object: dict[Address, list[Address]] = {}
        for file, read in reads.items():
            by_object.setdefault(read.address, []).append(file)
        if not by_object:
            return []
        # In the order of their keys, neighbours share directories.
        first = {address: by_object[address][0] for address in sorted(by_object)}
        kept = {address: data for address, file in first.items() if (data := reads[file].data) is not None}
        self.progress.files = first
        self.progress.held = {address: self.hashed.pop(first[address], 0) for address in kept}
        paths = {address: self.paths[file] for address, file in first.items()}
        store = _FilesRead(FileObjects(self.tree, paths, kept), kept)
        found = copy(store, {address: reads[file].length for address, file in first.items()})
        failed = {failure.address: failure for failure in found.failures}
        self.outcome.copied += found.copied
        self.outcome.bytes_copied += found.bytes_copied
        self.outcome.confirmed = found.confirmed
        self.outcome.needed_bytes += found.needed_bytes
        changed: list[Address] = []
        for address, files in by_object.items():
            failure = failed.get(address)
            if failure is None:
                pushed = address, reads[files[0]].length
                for file in files:
                    self.pushed[file] = pushed
            elif again and failure.store == self.tree.label and failure.error in _CHANGED:
                changed += files
            else:
                for file in files:
                    self._fail(file, failure)
        return changed

    def _fail(self, file: Address, failure: Failure) -> None:
        """Record the failure of a file by its path."""
        error, detail = failure.error, failure.detail
        if error == IntegrityError.__name__ and failure.store == self.tree.label:
            error, detail = FileChanged.__name__, "changed while it was read"
        path = self.paths[file]
        self.outcome.failures.append(
            Failure(file, error, failure.store, f"{path}: {detail}", failure.transient)
        )


class _FilesRead(SnapshotStore):
    """The files of a batch as a store. The bytes that are *kept* were hashed when they were read, and are not again."""

    def __init__(self, files: FileObjects, kept: Mapping[Address, bytes]) -> None:
        super().__init__(files)
        self._kept = kept

    def fetch_object(self, address: Address, size_hint: int) -> bytes | None:
        data = self._kept.get(address)
        return super().fetch_object(address, size_hint) if data is None else data

    def fetch_objects(self, addresses: Sequence[Address], size_hints: Sequence[int]) -> list[bytes | None]:
        return list(map(self._kept.get, addresses))


class _PlannedProgress:
    """
    The progress of a batch of files, never beyond its plan, whatever the files turn out to be.

    A long file is read for its digest before it is sent, which may take hours. So its first reading counts as half of
    its bytes, and what follows as the other half.
    """

    def __init__(self, progress: Progress, sizes: Mapping[Address, int]) -> None:
        self.files: Mapping[Address, Address] = {}
        """The address of an object -> the file that is read for it."""
        self.held: Mapping[Address, int] = {}
        """The address of an object whose bytes are in memory -> how many of them counted as hashed."""
        self.bytes_hashed = 0
        """Bytes that were read for digests alone."""
        self._progress = progress
        self._objects, self._bytes = len(sizes), sum(sizes.values())
        # Bytes that were counted when they were hashed.
        self._ahead = 0
        self._lock = threading.Lock()

    def hashed(self, size_bytes: int) -> None:
        """Count bytes that were read for a digest."""
        with self._lock:
            counted = min(size_bytes // 2, self._bytes)
            self._ahead += counted
            self._bytes -= counted
        self._count_hashed(size_bytes)
        try:
            self._progress.advance(0, counted)
        except Exception as error:
            mark_as_owners(error)
            raise

    def _count_hashed(self, size_bytes: int) -> None:
        with self._lock:
            self.bytes_hashed += size_bytes
        if isinstance(self._progress, CountsHashed):
            self._progress.hashed(size_bytes)

    def begin(self, needed: list[Address]) -> None:
        # These are read once, and count as moved when they are sent.
        self._count_hashed(-sum(self.held.get(address, 0) for address in needed))
        self.held = {}
        self._progress.begin([self.files[address] for address in needed])

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        with self._lock:
            ahead = min(self._ahead, size_bytes - size_bytes // 2)
            self._ahead -= ahead
            objects, size_bytes = min(objects, self._objects), min(size_bytes - ahead, self._bytes)
            self._objects -= objects
            self._bytes -= size_bytes
        self._progress.advance(objects, size_bytes, moved)

    def settle_rest(self) -> None:
        """Count what is left of the plan."""
        self._ahead = 0
        self.advance(self._objects, self._bytes)
