"""The requests that copy one object, by how the workers would copy it: sent whole, in parts, or by the server."""

from __future__ import annotations

from collections.abc import Callable

from snapferry.stores.pools.in_parts import can_copy_in_parts, parts_of
from snapferry.stores.requests import Requests
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.copying.parts import sizes
from snapferry.workers.messages import JobSpec


class ObjectRequests:
    """
    Returns the requests that copy an object of a job.

    *exact* becomes False where more may be sent: by each worker that joins a copy in parts, or for an object that the
    server refuses to copy. It is assumed that all workers have the compiled extension if this process has it.
    """

    def __init__(self, spec: JobSpec, source: StreamStore, destination: StreamStore) -> None:
        self.exact = True
        self._read, self._written = source.accounting, destination.accounting
        self._of: Callable[[int], tuple[Requests, Requests]] = self._sent
        if spec.server_side:
            self._of = self._on_server
        elif not spec.checksum and _in_parts(source, destination):
            self._of = self._in_parts

    def of(self, size: int) -> tuple[Requests, Requests]:
        """Return the requests to the source and to the destination for an object of *size* bytes by the manifest."""
        return self._of(size)

    def _sent(self, size: int) -> tuple[Requests, Requests]:
        return self._read.to_read_object(size), self._written.to_write_object(size)

    def _on_server(self, size: int) -> tuple[Requests, Requests]:
        self.exact = False
        return self._read.to_read_object(size), self._written.to_copy_on_server(size)

    def _in_parts(self, size: int) -> tuple[Requests, Requests]:
        parts = parts_of(size, sizes.LEAST_PART_BYTES) if sizes.is_large(size) else 0
        if not parts:
            return self._sent(size)
        self.exact = False
        return self._read.to_read_parts(parts), self._written.to_write_parts(parts)


def _in_parts(source: StreamStore, destination: StreamStore) -> bool:
    return (
        sizes.hashes_fast()
        and isinstance(source, SnapshotStore)
        and isinstance(destination, SnapshotStore)
        and can_copy_in_parts(source.objects, destination.objects)
    )
