"""
Run the objects of a batch one after the other. Used when earlier runs of the batch killed their workers or failed.

Before each object the ledger records its position. So if copying an object kills the process, the ledger knows
which object it was. After `MAX_DEATHS` deaths that object alone fails, and the others are copied. Objects with recorded
deaths come last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError, StoreFault
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.telemetry.redaction import without_secrets

from .interfaces import BatchFunction, ConcurrencyLimit, OutageDetector, Progress

log = logging.getLogger(__name__)

SEQUENTIAL_AFTER: Final = 3
"""A batch that was started more often than this without a known end is copied sequentially."""

MAX_DEATHS: Final = 5
"""Workers that may die while they copy an object, and no other, before the object fails."""


def run_sequentially(
    run: BatchFunction,
    source: StreamStore,
    destination: StreamStore,
    objects: Mapping[Address, int],
    progress: Progress,
    *,
    deaths: Mapping[Address, int],
    note_current: Callable[[Address], None],
    limit: ConcurrencyLimit,
    outages: OutageDetector | None = None,
) -> BatchOutcome:
    """
    Do with *objects* (address -> advisory size in bytes) what *run* does, one after the other.

    *deaths*: address -> workers that died while they copied that object. *note_current* is called with the address
    of each object before it is copied. Every exception of an object becomes its failure. Raises `BatchStopped`, and
    what *note_current* raises.
    """
    total = BatchOutcome()
    for address in sorted(objects, key=lambda address: deaths.get(address, 0)):
        size = objects[address]
        if deaths.get(address, 0) >= MAX_DEATHS:
            total.failures.append(Failure.of(address, _killed_workers()))
            progress.advance(1, size)
            continue
        note_current(address)
        try:
            outcome = run(
                source,
                destination,
                {address: size},
                progress,
                concurrency=1,
                abort_unfinished=True,
                limit=limit,
                outages=outages,
            )
        except StoreError as error:
            outcome = BatchOutcome(failures=[Failure.of(address, error)])
        except Exception as error:
            log.exception("uncaught exception while an object was copied: %s", address)
            outcome = BatchOutcome(failures=[Failure.of(address, unexpected_failure(error))])
        _add(total, outcome)
    return total


def unexpected_failure(error: BaseException) -> StoreError:
    """Return an exception that no store should raise as the failure of an object."""
    return StoreFault(
        "", "", f"unexpected {type(error).__name__}: {without_secrets(str(error))}; see the worker's log"
    )


def _killed_workers() -> StoreError:
    return StoreFault(
        "",
        "",
        f"{MAX_DEATHS} workers died while they copied this object and no other; did they run out of memory?",
    )


def _add(total: BatchOutcome, outcome: BatchOutcome) -> None:
    total.copied += outcome.copied
    total.present += outcome.present
    total.bytes_copied += outcome.bytes_copied
    total.needed_bytes += outcome.needed_bytes
    total.failures += outcome.failures
