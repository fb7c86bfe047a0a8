"""The two stores of a job."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef


class StoreSide(NamedTuple):
    """A store of a job as its source or its destination; *writing* is true for a destination that is written to."""

    ref: StoreRef
    writing: bool

    @property
    def name(self) -> str:
        """The name of this side in Redis keys: a hash, because URLs may be long."""
        text = json.dumps([self.writing, self.ref.url, self.ref.objects_url])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def sides_of(work: BatchMessage | JobSpec) -> tuple[StoreSide, StoreSide]:
    """Return source and destination of a batch or of a job. They are equal for a job of one store that only reads."""
    return StoreSide(work.source, writing=False), StoreSide(work.destination, writing=work.action.writes)
