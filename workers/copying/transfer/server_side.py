"""Copy a batch between two stores of one server, which copies the bytes itself where it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Unpack

from snapferry.stores.address import Address
from snapferry.stores.pools.server_copy import copy_on_server
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.outcome import BatchOutcome

from .batch import copy_batch
from .interfaces import BatchOptions, Progress

ON_SERVER: Final = "server"
"""The name in `BatchOutcome.confirmed` of objects that the server copied. A job that asks for that counts also none."""


def copy_batch_on_server(
    source: StreamStore,
    destination: StreamStore,
    objects: Mapping[Address, int],
    progress: Progress,
    /,
    **options: Unpack[BatchOptions],
) -> BatchOutcome:
    """As `copy_batch`. Each object that the server does not copy is sent."""

    def copy(
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> int:
        if isinstance(source, SnapshotStore) and isinstance(destination, SnapshotStore):
            length = copy_on_server(
                source.objects, destination.objects, address, size_hint=size_hint, on_bytes=on_bytes
            )
            if length is not None:
                return length
        return destination.copy_object(source, address, size_hint=size_hint, on_bytes=on_bytes)

    outcome = copy_batch(source, destination, objects, progress, copy=copy, **options)
    outcome.confirmed.setdefault(ON_SERVER, 0)
    return outcome
