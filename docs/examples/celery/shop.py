"""
An application of your own, with Celery, whose tasks submit jobs to a snapferry fleet and follow them.

The application has a broker and a queue of its own: SHOP_BROKER_URL. The fleet's Redis is SNAPFERRY_BROKER_URL. Both
may be one Redis server with two databases (``/0`` and ``/1``).
"""

import os
import uuid

from celery import Celery

from snapferry import Client
from snapferry.orchestrator.client import BrokerUnavailable, JobFailed, State, status_line

app = Celery("shop", broker=os.environ["SHOP_BROKER_URL"], backend=os.environ["SHOP_BROKER_URL"])
app.conf.task_default_queue = "shop"
# Celery's broadcasts reach every application of a Redis server's database that uses the same names.
app.conf.control_exchange = "shop"
app.conf.event_exchange = "shop.events"

POLL_S = float(os.environ.get("SHOP_POLL_S", "15"))


@app.task(bind=True, acks_late=True, autoretry_for=(BrokerUnavailable,), retry_backoff=True, max_retries=None)
def copy_backup(self, day: str) -> None:
    """
    Copy the newest snapshot; the result is the JSON document of the job.

    Called again for the same *day*, this takes up the job that is there, and resumes it if it failed or was cancelled.
    """
    with Client() as client:
        job_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"shop/copy-backup/{day}"))
        job = client.take_up(job_id) or client.sync("live", "backup", "latest", job_id=job_id)
    raise self.replace(follow.s(job.id))


@app.task(bind=True, acks_late=True, autoretry_for=(BrokerUnavailable,), retry_backoff=True, max_retries=None)
def follow(self, job_id: str) -> dict:
    """Look at a job every few seconds until it has ended. Between two looks, no worker of this application is busy."""
    with Client() as client:
        job = client.job(job_id)
        status = job.status()
        print(status_line(status))
        if not status.state.final:
            # Keep the countdown far below the visibility timeout of the broker (1 hour).
            raise self.retry(countdown=POLL_S)
        if status.state is not State.DONE:
            raise JobFailed(job, status)
        return job.document()


@app.task
def report(document: dict) -> str:
    """Say what a job did."""
    return f"{document['objects']['copied']} objects copied"


if __name__ == "__main__":
    import sys

    print((copy_backup.s(sys.argv[1]) | report.s()).delay().get(timeout=3600))
