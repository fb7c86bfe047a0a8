"""Read many manifests, several at once where a store makes its callers wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import Final, NamedTuple, TypeVar

from snapferry.stores.address import SnapshotId
from snapferry.stores.errors import StoreError
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.interruption import checkpoint, interruptible_too
from snapferry.stores.stream_store import StreamStore

_T = TypeVar("_T")

# Manifests that are read at once, each in up to 16 MiB of memory.
AT_ONCE: Final = 8


class Unreadable(NamedTuple):
    """A manifest that could not be read, and why."""

    error: StoreError


class _Stopped(Exception):
    """Nobody waits for the result any more."""


def read_each(
    store: StreamStore, snapshot_ids: Iterable[SnapshotId], use: Callable[[Manifest], _T]
) -> Iterator[tuple[SnapshotId, _T | Unreadable]]:
    """
    Yield what *use* returns for each manifest of *store*, in the order of *snapshot_ids*.

    *use* may run in several threads at once. A `StoreError` of one manifest stops no other. Closing the iterator ends
    the reads in progress.
    """

    def read(snapshot_id: SnapshotId) -> _T | Unreadable:
        try:
            with store.read_manifest(snapshot_id) as manifest:
                return use(manifest)
        except StoreError as error:
            return Unreadable(error)

    workers = min(AT_ONCE, store.concurrency)
    if workers <= 1:
        for snapshot_id in snapshot_ids:
            checkpoint()
            yield snapshot_id, read(snapshot_id)
        return
    stopped = Event()

    def check() -> None:
        if stopped.is_set():
            raise _Stopped

    def read_in_thread(snapshot_id: SnapshotId) -> _T | Unreadable:
        with interruptible_too(check):
            return read(snapshot_id)

    waiting: deque[tuple[SnapshotId, Future[_T | Unreadable]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for snapshot_id in snapshot_ids:
                if len(waiting) == workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
                waiting.append((snapshot_id, pool.submit(copy_context().run, read_in_thread, snapshot_id)))
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
