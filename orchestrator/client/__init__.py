"""
Jobs from a Python program: submit them to a fleet, follow and control them.

    from snapferry import Client

    with Client("redis://broker/0") as client:
        job = client.sync("file:///srv/store", "s3://backup/store", [snapshot_id])
        for event in job.events():
            print(event.state, event.copied, event.objects_total)

Importing this package connects to nothing and reads nothing.

    client   `Client`: a fleet, and the jobs that it is given
    job      `Job`: one job
    requests what each action asks of a job
"""

from snapferry.orchestrator.jobs import JobRefused
from snapferry.stores.errors import InvalidStoreURL, StoreError
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import JobStatus, State, UnknownJob
from snapferry.workers.messages import Budget, Limits, Order, Prune
from snapferry.workers.queues import Priority
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .client import Client
from .job import Job, JobFailed, status_line
from .requests import JobOptions, SyncOptions

__all__ = [
    "BrokerUnavailable",
    "Budget",
    "Client",
    "InvalidSettings",
    "InvalidStoreURL",
    "Job",
    "JobFailed",
    "JobOptions",
    "JobRefused",
    "JobStatus",
    "Limits",
    "Order",
    "Priority",
    "Prune",
    "Settings",
    "State",
    "StoreError",
    "SyncOptions",
    "UnknownJob",
    "status_line",
]
