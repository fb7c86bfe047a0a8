"""The repairs of a job, recorded in the ledger while its batches run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snapferry.stores.address import Address
from snapferry.workers.ledger import Ledger, Repair


@dataclass(frozen=True)
class LedgerRepairs:
    """The `Repairs` of the job *job_id*."""

    ledger: Ledger
    job_id: str

    def found(self, wrong: Mapping[Address, str]) -> None:
        """As `Repairs.found`."""
        self.ledger.note_repairs(self.job_id, [Repair(address, what) for address, what in wrong.items()])

    def repaired(self, address: Address, wrong: str, source: str, quarantined: str) -> None:
        """As `Repairs.repaired`."""
        self.ledger.note_repairs(self.job_id, [Repair(address, wrong, source, quarantined)])

    def failed(self, address: Address) -> None:
        """As `Repairs.failed`."""
        self.ledger.forget_repair(self.job_id, address)
