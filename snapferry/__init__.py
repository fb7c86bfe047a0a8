"""
snapferry copies snapshots between content-addressed stores.

    stores        what a store is
    workers       one unit of work
    orchestrator  deciding and showing
    worker        the worker's Celery app: ``celery -A snapferry.worker``

Imports run one way: `orchestrator`, then `workers`, then `stores`.

The Python API is here as well: ``from snapferry import Client``. It is imported when it is first asked for, because
commands and workers do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .orchestrator.client import Client, Job, JobFailed

__all__ = ["Client", "Job", "JobFailed"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'snapferry' has no attribute {name!r}")
    from .orchestrator import client

    return getattr(client, name)
