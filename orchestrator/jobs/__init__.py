"""
Jobs: submit them, follow them, control them. The Python API of snapferry.

    jobs = Jobs(Settings.from_environment())
    source, destination = store_pair("file:///srv/store", "s3://backup/store")
    job_id = jobs.submit(JobSpec.of(source, destination, [snapshot_id]))
    jobs.wait(job_id)

The process that submitted a job may end: the fleet completes the job.

    client      submit, resume, retry, cancel, pause, limit
    index       all jobs, to be searched, filtered and sorted
    reader      status, lists, receipts and failures of jobs
    broker      the connection to the broker, and its errors
    store_pair  the stores of a job, from their URLs
"""

from .broker import JobRefused
from .client import Jobs
from .index import JobQuery, Listing, Sort
from .reader import POLL_S, JobReader, JobsPage
from .store_pair import one_store, store_pair

__all__ = [
    "POLL_S",
    "JobQuery",
    "JobReader",
    "JobRefused",
    "Jobs",
    "JobsPage",
    "Listing",
    "Sort",
    "one_store",
    "store_pair",
]
