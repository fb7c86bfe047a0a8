"""The objects within the scope of a job: in a range of addresses, and in one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from snapferry.stores.address import ADDRESS_LENGTH
from snapferry.workers.messages import Scope

from .gather import Objects

if TYPE_CHECKING:
    # It imports NumPy, which takes longer than to plan a small job.
    from snapferry.stores.bulk.tables import ObjectTable

# Digits of an address that decide in which sample it is.
_DIGITS: Final = 16


def within(scope: Scope, objects: Objects | ObjectTable) -> Objects | ObjectTable:
    """Return those of *objects* that are within *scope*."""
    if not scope.limited:
        return objects
    first, last = scope.first.ljust(ADDRESS_LENGTH, "0"), scope.last.ljust(ADDRESS_LENGTH, "f")
    samples, sample = scope.samples, scope.sample
    if not isinstance(objects, Mapping):
        return objects.between(bytes.fromhex(first), bytes.fromhex(last)).sample(sample, samples)
    both = all if first <= last else any
    return {
        address: size
        for address, size in objects.items()
        if both((first <= address, address <= last)) and int(address[:_DIGITS], 16) % samples == sample
    }
