"""
The function that runs a batch, by the action of its job.

To add an action: a function like `copy_batch` in `transfer`, and a row here. `snapferry.orchestrator.driving.actions`
has the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from snapferry.stores.backends.tree.writing.opened import target_of
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import PLAN, Ledger
from snapferry.workers.messages import Action, BatchMessage, StoreRef
from snapferry.workers.messages.files import files_of

from .parts.owner import Ask, PartsCopying
from .parts.sizes import is_large
from .repairs import LedgerRepairs
from .transfer import copy_batch
from .transfer.heal import Healing
from .transfer.interfaces import BatchFunction
from .transfer.listing_memories import listing_memory
from .transfer.pull import Pulling
from .transfer.push import Pushing
from .transfer.server_side import copy_batch_on_server
from .transfer.verify import verify_batch


@dataclass(frozen=True)
class BatchContext:
    """
    What the function of an action may need besides its arguments: the *batch* and the *ledger*.

    *open_source* opens one of the batch's `more_sources` for reading, within the limits of the job. It raises
    `InvalidStoreURL` and `NotAllowed`. *worker* runs the batch. *ask* asks other workers to join the copy of a large
    object. *last*: a transient error will not be retried. *submitted* is that of `snapferry.workers.ledger.Begun`.
    """

    batch: BatchMessage
    ledger: Ledger
    open_source: Callable[[StoreRef], StreamStore]
    worker: str
    ask: Ask
    last: bool
    submitted: str


def _copying(context: BatchContext) -> BatchFunction:
    batch = context.batch
    if batch.checksum:
        return _healing(context)
    if batch.server_side or not any(map(is_large, batch.sizes)):
        return _copy_of(context)
    return PartsCopying(batch, context.ledger, context.worker, context.ask, last=context.last).run


def _copy_of(context: BatchContext) -> BatchFunction:
    return copy_batch_on_server if context.batch.server_side else copy_batch


def _healing(context: BatchContext) -> BatchFunction:
    batch = context.batch
    further = [partial(context.open_source, ref) for ref in batch.more_sources]
    repairs = LedgerRepairs(context.ledger, batch.job_id)
    return Healing(repairs, further, compares=batch.action is Action.COPY, copy=_copy_of(context)).run


def _pushing(context: BatchContext) -> BatchFunction:
    batch = context.batch
    paths = {file: line.decode() for file, line in batch.lines_by_address().items()}
    report = partial(context.ledger.note_files, batch, submitted=context.submitted)
    memory = None
    if batch.series == PLAN:
        # Objects of another series were absent in the commit's check although a batch accounted for them.
        memory = listing_memory(batch.job_id, batch.destination.url, batch.destination.objects_url)
    return Pushing(paths, batch.tree.follow, report, memory).run


def _pulling(context: BatchContext) -> BatchFunction:
    batch = context.batch
    sizes, lines = batch.objects(), batch.lines_by_address()
    found = files_of(list(lines.values()), [sizes[file] for file in lines])
    files = dict(zip(lines, found, strict=True))
    return Pulling(files, partial(target_of, delete=batch.tree.delete, linked=batch.tree.linked)).run


RUNNERS: Final[dict[Action, Callable[[BatchContext], BatchFunction]]] = {
    Action.COPY: _copying,
    Action.HEAL: _healing,
    Action.PUSH: _pushing,
    Action.PULL: _pulling,
    Action.VERIFY: lambda context: partial(verify_batch, fast=context.batch.verify.fast),
}
"""Action -> a function that returns the function for a batch."""
