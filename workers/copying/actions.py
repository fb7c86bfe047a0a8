"""
The function that runs a batch, by the action of its job.

To add an action: a function like `copy_batch` in `transfer`, and a row here. `snapferry.orchestrator.driving.actions`
has the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import Action, BatchMessage, StoreRef

from .transfer import copy_batch
from .transfer.interfaces import BatchFunction


@dataclass(frozen=True)
class BatchContext:
    """
    What the function of an action may need besides its arguments: the *batch* and the *ledger*.

    *open_source* opens one of the batch's `more_sources` for reading, within the limits of the job. It raises
    `InvalidStoreURL` and `NotAllowed`.
    """

    batch: BatchMessage
    ledger: Ledger
    open_source: Callable[[StoreRef], StreamStore]


RUNNERS: Final[dict[Action, Callable[[BatchContext], BatchFunction]]] = {
    Action.COPY: lambda _: copy_batch,
}
"""Action -> a function that returns the function for a batch."""
