"""The whole ledger."""

from __future__ import annotations

from .steps.accounting import AccountingLedger
from .steps.budgets import BudgetLedger
from .steps.driver import DriverLedger
from .steps.files import FileLedger
from .steps.groups import GroupLedger
from .steps.jobs import JobLedger
from .steps.leases import LeaseLedger
from .steps.listing import JobListing
from .steps.parts import PartsLedger
from .steps.parts_progress import PartsProgress
from .steps.queues import QueueLedger
from .steps.repairs import RepairLedger


class Ledger(
    JobLedger,
    DriverLedger,
    LeaseLedger,
    AccountingLedger,
    RepairLedger,
    FileLedger,
    BudgetLedger,
    GroupLedger,
    PartsLedger,
    PartsProgress,
    QueueLedger,
    JobListing,
):
    """
    All steps of the ledger, on one Redis server.

    All methods raise `redis.exceptions.RedisError` when the client stops retrying. The last write may then have
    happened or not. Every method may be repeated with the same arguments, except where its docstring says otherwise.
    """
