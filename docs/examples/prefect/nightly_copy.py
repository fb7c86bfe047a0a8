"""A Prefect flow that copies the newest snapshot with a snapferry fleet, and reads the copy again."""

import uuid
from datetime import timedelta

from prefect import flow, get_run_logger, runtime, task

from snapferry import Client
from snapferry.orchestrator.client import Job, JobFailed, State, UnknownJob, status_line


def job_id(step: str, flow_run_id: object) -> str:
    """Return the id of a flow run's job. All attempts have the same, so a retry takes the job up."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"prefect/{flow_run_id}/{step}"))


def followed(job: Job) -> dict:
    """Log the progress of a job until it has ended; return its JSON document. Raises JobFailed."""
    log = get_run_logger()
    for status in job.events(poll_s=5):
        log.info(status_line(status))
    status = job.status()
    if status.state is not State.DONE:
        raise JobFailed(job, status)
    return job.document()


@task(retries=3, retry_delay_seconds=timedelta(minutes=10).total_seconds())
def copy(source: str, destination: str) -> dict:
    """Copy the newest snapshot of *source*."""
    own_id = job_id("copy", runtime.flow_run.id)
    with Client() as client:
        return followed(client.take_up(own_id) or client.sync(source, destination, "latest", job_id=own_id))


@task(retries=3, retry_delay_seconds=timedelta(minutes=10).total_seconds())
def verify(store: str, snapshot: str) -> dict:
    """Read the objects of *snapshot* again."""
    own_id = job_id("verify", runtime.flow_run.id)
    with Client() as client:
        return followed(client.take_up(own_id) or client.verify(store, snapshot, job_id=own_id))


def cancel_jobs(flow: object, flow_run: object, state: object) -> None:
    """Cancel the jobs of a flow run that is cancelled, or whose process died for good."""
    with Client() as client:
        for step in ("copy", "verify"):
            try:
                client.job(job_id(step, flow_run.id)).latest().cancel()
            except UnknownJob:
                continue


@flow(on_cancellation=[cancel_jobs])
def nightly_copy(source: str = "live", destination: str = "backup") -> str:
    """Stores are named in snapferry.toml; the fleet's Redis in SNAPFERRY_BROKER_URL."""
    copied = copy(source, destination)
    verified = verify(destination, copied["snapshot"])
    return f"{copied['objects']['copied']} objects copied, {verified['objects']['present']} intact"


if __name__ == "__main__":
    print(nightly_copy())
