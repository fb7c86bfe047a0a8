"""
Jobs: submit them, follow them, control them. `snapferry.orchestrator.client` is the API for other programs.

    client      submit, resume, retry, cancel, pause, limit
    index       all jobs, to be searched, filtered and sorted
    reader      status, lists, receipts and failures of jobs
    broker      the connection to the broker, and its errors
    batching    into how many batches the objects of a job are cut
    known_nodes which workers and orchestrators there are
    store_pair  the stores of a job, from their URLs
"""

from .broker import BrokerDamaged, JobRefused
from .client import Jobs
from .index import JobQuery, Listing, Sort
from .reader import POLL_S, JobReader, JobsPage
from .store_pair import check_differ, check_is_store, one_store, store_pair, tree_path, tree_url

__all__ = [
    "POLL_S",
    "BrokerDamaged",
    "JobQuery",
    "JobReader",
    "JobRefused",
    "Jobs",
    "JobsPage",
    "Listing",
    "Sort",
    "check_differ",
    "check_is_store",
    "one_store",
    "store_pair",
    "tree_path",
    "tree_url",
]
