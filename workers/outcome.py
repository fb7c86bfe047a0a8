"""The outcome of a batch: which objects were copied, which were present, and which failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError

# The error of an object for which the budget of its job has no room.
OVER_BUDGET: Final = "OverBudget"


@dataclass(frozen=True)
class Failure:
    """
    One object that could not be copied.

    *error* is the name of the error's class, *store* the label of the store that raised it, *detail* its message.
    """

    address: Address
    error: str
    store: str
    detail: str
    transient: bool

    @classmethod
    def of(cls, address: Address, error: StoreError) -> Failure:
        """Return the failure of the object at *address* by *error*."""
        return cls(address, type(error).__name__, error.store, error.detail, error.transient)


@dataclass
class BatchOutcome:
    """
    The outcome of a batch. Each object counts once, as copied, as present, or in *failures*.

    *bytes_copied* counts the bytes that were read and written. *needed_bytes* are the sizes, by the manifest, of the
    objects that were not present. *bytes_hashed* counts those of files that were read for their checksums alone.
    *confirmed* counts written objects by the way their write was confirmed, see `Backend.confirmed`.
    """

    copied: int = 0
    present: int = 0
    bytes_copied: int = 0
    needed_bytes: int = 0
    bytes_hashed: int = 0
    failures: list[Failure] = field(default_factory=list)
    confirmed: dict[str, int] = field(default_factory=dict)

    @property
    def transient_failures(self) -> bool:
        """Return whether a retry of the batch may succeed for more objects."""
        return any(failure.transient for failure in self.failures)

    @property
    def retryable(self) -> bool:
        """Return whether the batch should be retried: some failures are transient, and the budget is not spent."""
        return self.transient_failures and all(failure.error != OVER_BUDGET for failure in self.failures)
