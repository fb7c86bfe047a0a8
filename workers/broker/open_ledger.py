"""Open the ledger on the broker of the settings."""

from __future__ import annotations

from snapferry.workers.ledger import Ledger
from snapferry.workers.settings.environment import Settings

from .connection import client


def open_ledger(settings: Settings, *, retries: int | None = None) -> Ledger:
    """Return the ledger on this process's connection to the broker; a command is tried *retries* more times."""
    assert settings.broker_url is not None  # make_app refuses settings without a broker
    return Ledger(client(settings.broker_url, retries=retries), expires_s=settings.job_expires)
