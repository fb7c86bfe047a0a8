"""A store whose wrong and missing manifests are read from other stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .address import SnapshotId, parse_snapshot_id
from .errors import AccessDenied, IntegrityError, ManifestMissing, NotAnObject, StoreError
from .manifest.parse import Manifest
from .snapshot_store import SnapshotStore
from .stream_store import StreamStore

WRONG: Final = (ManifestMissing, IntegrityError, NotAnObject)
"""The errors of a manifest for which another store is asked."""


class WithFallback(SnapshotStore):
    """
    The store *of*, except that `read_manifest` returns a manifest from the first of *others* that has it intact.

    Only where *of* has it wrong or not at all. What is published here is compared with what *of* itself holds. Each of
    *others* is opened when it is needed, every time.
    """

    def __init__(self, of: SnapshotStore, others: Sequence[Callable[[], StreamStore]]) -> None:
        super().__init__(of.objects, of.manifests)
        self._others = others

    def read_manifest(self, snapshot_id: str) -> Manifest:
        """As `StreamStore.read_manifest`. Where no store has it, raises the error of this one."""
        try:
            return super().read_manifest(snapshot_id)
        except WRONG as error:
            wrong = error
        found = parse_snapshot_id(snapshot_id)
        return self._read_elsewhere(found, wrong)

    def _read_elsewhere(self, snapshot_id: SnapshotId, wrong: StoreError) -> Manifest:
        lacking = []
        for other in self._others:
            try:
                return other().read_manifest(snapshot_id)
            except StoreError as error:
                # A refusal has a reason that somebody can do something about.
                why = f": {error.detail}" if isinstance(error, AccessDenied) else ""
                lacking.append(f"{error.store} ({type(error).__name__}{why})")
        detail = f"{wrong.detail}; no other store has it: {', '.join(lacking)}"
        raise type(wrong)(wrong.store, wrong.subject, detail) from wrong
