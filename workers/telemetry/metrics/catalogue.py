"""
The metrics that are counted where work is done: their names, labels and meanings. Plain data.

No label ever holds a job, a path, a bucket or a host name: the values of each are few, whatever is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Role = Literal["worker", "orchestrator"]

WORKER: Final[Role] = "worker"
ORCHESTRATOR: Final[Role] = "orchestrator"

# What came of delivering a batch, in order of the checks that decide it.
DELIVERY_ENDS: Final = (
    "repeated", "stopped", "held", "stepped_aside", "given_up", "parked", "unreached", "retried", "ended",
)  # fmt: skip

TASK_STATES: Final = ("success", "retry", "failure")


@dataclass(frozen=True)
class Metric:
    """
    One metric. *help* is what Prometheus shows of it.

    *labels*: name -> the values that are exported as 0 before anything was counted, none where they are not
    known before. *buckets* are a histogram's upper bounds.
    """

    name: str
    kind: Kind
    help: str
    roles: tuple[Role, ...]
    labels: tuple[str, ...] = ()
    zeros: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()


_BATCH_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_TASK_BUCKETS: Final = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800, 7200)

# Said of every counter of work: queues deliver at least once.
_TWICE: Final = "Work that was done twice, after a redelivery, counts twice."

COUNTED: Final = (
    Metric(
        "snapferry_objects_total",
        "counter",
        f"Objects by outcome, counted when a run of their batch ends. {_TWICE} Of a run that will be tried again"
        " only what it copied counts; what an earlier run copied is present to the next.",
        (WORKER,),
        ("outcome",),
        (("copied",), ("present",), ("failed",)),
    ),
    Metric(
        "snapferry_copied_bytes_total",
        "counter",
        f"Bytes of the objects that were copied, as they were read and written. {_TWICE}",
        (WORKER,),
    ),
    Metric(
        "snapferry_batch_deliveries_total",
        "counter",
        "Deliveries of batches by what came of them: ended (accounted for), retried (passing trouble of a store),"
        " stepped_aside (another worker had it), held (the job was paused), stopped (the job was cancelled or had"
        " ended), repeated (it was accounted for before), given_up (begun too often and never heard of again), parked"
        " (this worker cannot reach a store of it), unreached (no worker could, so its objects failed).",
        (WORKER,),
        ("end",),
        tuple((end,) for end in DELIVERY_ENDS),
    ),
    Metric(
        "snapferry_batch_duration_seconds",
        "histogram",
        "How long runs of batches took, from asking what the destination has to the last object. Cancelled runs"
        " are left out.",
        (WORKER,),
        buckets=_BATCH_BUCKETS,
    ),
    Metric(
        "snapferry_batches_in_flight",
        "gauge",
        "Batches that the processes of this worker copy right now.",
        (WORKER,),
    ),
    Metric(
        "snapferry_store_requests_total",
        "counter",
        "Requests sent to stores, every attempt, by the kind of store (the scheme of its URL), its side of the copy"
        " and the operation. Directories are sent none.",
        (WORKER, ORCHESTRATOR),
        ("store", "side", "operation"),
    ),
    Metric(
        "snapferry_errors_total",
        "counter",
        "Errors of stores by class: one for each object that a run of a batch could not copy, whether it is tried"
        " again or not, and one for each step of an orchestrator that met one. Transient ones may pass by themselves.",
        (WORKER, ORCHESTRATOR),
        ("error", "transient"),
    ),
    Metric(
        "snapferry_tasks_total",
        "counter",
        "Tasks that ran, by name and state. A task in state retry put itself into the queue again; one in state"
        " failure met something that nobody foresaw.",
        (WORKER, ORCHESTRATOR),
        ("task", "state"),
    ),
    Metric(
        "snapferry_task_duration_seconds",
        "histogram",
        "How long tasks ran, by name, whatever came of them.",
        (WORKER, ORCHESTRATOR),
        ("task",),
        buckets=_TASK_BUCKETS,
    ),
    Metric(
        "snapferry_jobs_ended_total",
        "counter",
        "Jobs that this orchestrator brought to their end, by final state. A job that was cancelled before any"
        " orchestrator took it is not among them.",
        (ORCHESTRATOR,),
        ("state",),
        (("done",), ("failed",), ("cancelled",)),
    ),
)

BUILD_INFO: Final = Metric(
    "snapferry_build_info",
    "gauge",
    "1, with the versions of snapferry, Celery and Python, and the role of this process.",
    (WORKER, ORCHESTRATOR),
    ("version", "celery", "python", "role"),
)
