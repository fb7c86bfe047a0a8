"""The fleet of a command's broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.broker.connection import BrokerUnavailable, BrokerUnfit, wait_for_broker
from snapferry.workers.ledger import UnknownJob, UnreadableJob
from snapferry.workers.settings.environment import Settings

from .exit_codes import fail, note, usage

NO_BROKER: Final = (
    "no broker is configured: only a fleet queues jobs, and keeps records of jobs and schedules. Set"
    " SNAPFERRY_BROKER_URL to the URL of its Redis server, or use --broker."
)

# What to do if no Redis answers.
UNREACHABLE: Final = "Check that it runs, and that host, port and TLS of its URL are right: snapferry doctor"


def await_broker(settings: Settings) -> None:
    """Wait for the broker, however long it is away; end the command if the broker is not fit for use."""
    try:
        wait_for_broker(settings.broker_url or "", note)
    except BrokerUnfit as error:
        usage(str(error))


@contextmanager
def on_fleet(settings: Settings, *, advice: str) -> Iterator[Jobs]:
    """
    Yield the jobs of the fleet; end the command if the broker cannot be used or loses a job.

    *advice*: what to do about a job that is lost.
    """
    if settings.broker_url is None:
        usage(NO_BROKER)
    try:
        jobs = Jobs(settings)
    except BrokerUnfit as error:
        # A server that answers, but is not configured for this.
        usage(str(error))
    except BrokerUnavailable as error:
        fail(f"{error}. {UNREACHABLE}")
    try:
        # Also for what a command reads by itself.
        with jobs.records():
            yield jobs
    except (BrokerUnavailable, UnreadableJob) as error:
        fail(str(error))
    except UnknownJob as error:
        fail(f"the record of job {error.job_id} is gone: the broker lost its data. {advice}".rstrip())
