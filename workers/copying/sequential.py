"""
Copy the objects of a batch one after the other: of a batch whose runs killed their workers, or ended unexpectedly.

Before each object the ledger is told which one it is. So an object whose copying kills the process is known by its
position: after `MAX_DEATHS` of these deaths the object fails, alone, and the others are copied. An object over which a
worker died before comes last.
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

from .transfer import Flights, Judge, Progress, copy_batch

log = logging.getLogger(__name__)

# A batch that was begun more often than this, and not heard of again, is copied one object after the other.
CAREFUL_AFTER: Final = 3

# So many deaths over one object, alone, make it failed.
MAX_DEATHS: Final = 5


def copy_one_by_one(
    source: StreamStore,
    destination: StreamStore,
    objects: Mapping[Address, int],
    progress: Progress,
    *,
    deaths: Mapping[Address, int],
    alone: Callable[[Address], None],
    in_flight: Flights,
    judge: Judge | None = None,
) -> BatchOutcome:
    """
    Bring *objects* (address -> advisory size in bytes) to *destination* as `copy_batch` does, one after the other.

    *deaths*: address -> how often a worker died over that object. *alone* is called before each object with its
    address. Whatever an object raises becomes its failure. Raises `Cancelled`, and what *alone* raises.
    """
    whole = BatchOutcome()
    for address in sorted(objects, key=lambda address: deaths.get(address, 0)):
        size = objects[address]
        if deaths.get(address, 0) >= MAX_DEATHS:
            whole.failures.append(Failure.of(address, _killed()))
            progress.advance(1, size)
            continue
        alone(address)
        try:
            part = copy_batch(
                source,
                destination,
                {address: size},
                progress,
                concurrency=1,
                begun_before=True,
                in_flight=in_flight,
                judge=judge,
            )
        except StoreError as error:
            part = BatchOutcome(failures=[Failure.of(address, error)])
        except Exception as error:
            log.exception("uncaught exception while an object was copied: %s", address)
            part = BatchOutcome(failures=[Failure.of(address, unexpected(error))])
        _add(whole, part)
    return whole


def unexpected(error: BaseException) -> StoreError:
    """Return the failure of an object by what no store should raise."""
    return StoreFault(
        "", "", f"unexpected {type(error).__name__}: {without_secrets(str(error))}; see the worker's log"
    )


def _killed() -> StoreError:
    return StoreFault(
        "",
        "",
        f"{MAX_DEATHS} workers died while they copied this object and no other; did they run out of memory?",
    )


def _add(whole: BatchOutcome, part: BatchOutcome) -> None:
    whole.copied += part.copied
    whole.present += part.present
    whole.bytes_copied += part.bytes_copied
    whole.needed_bytes += part.needed_bytes
    whole.failures += part.failures
