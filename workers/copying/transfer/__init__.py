"""
Copy a batch of objects between two stores: plain functions, without Celery and without the ledger.

    batch       copy a batch
    objects     copy its objects, one by one or in groups
    server_side  copy a batch that the server of both stores copies
    push, pull  files of trees as the objects of a batch
    listing_memories  what this process remembers of listings, for batches of a push
    heal        compare content, and repair wrong objects
    verify      verify a batch of one store
    counting    count bytes for the progress of a batch
    sequential  run a batch without concurrency, after its runs killed their workers
    budget      keep a job within its budget
    interfaces  what stops a batch, and what its caller implements
"""

from .batch import copy_batch
from .interfaces import BatchStopped, JobPaused, JobStopped, WorkerStopping
from .objects import MANY_DENIED

__all__ = [
    "MANY_DENIED",
    "BatchStopped",
    "JobPaused",
    "JobStopped",
    "WorkerStopping",
    "copy_batch",
]
