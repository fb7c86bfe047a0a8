"""
The metrics of workers and orchestrators: their names, labels and meanings. Plain data.

No label holds a job, a path, a bucket or a host name, so each label has few values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Role = Literal["worker", "orchestrator"]

WORKER: Final[Role] = "worker"
ORCHESTRATOR: Final[Role] = "orchestrator"

# The results of a delivery of a batch, in the order of the checks that decide on them.
DELIVERY_ENDS: Final = (
    "repeated", "stopped", "held", "stepped_aside", "given_up", "parked", "unreached", "retried", "ended",
)  # fmt: skip

_PREFIX: Final = "snapferry_"

TASK_STATES: Final = ("success", "retry", "expected_failure", "failure")


@dataclass(frozen=True)
class Metric:
    """
    One metric. Prometheus shows its *help*.

    *labels* are the names of its labels. *zeros* are the label values that are exported as 0 before anything is
    counted. *buckets* are the upper bounds of a histogram.
    """

    name: str
    kind: Kind
    help: str
    roles: tuple[Role, ...]
    labels: tuple[str, ...] = ()
    zeros: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()


def of_the_fleet(name: str, help_: str, *labels: str, kind: Kind = "gauge") -> Metric:
    """Return a metric of the whole fleet, which orchestrators export; *name* is without its prefix."""
    return Metric(_PREFIX + name, kind, help_, (ORCHESTRATOR,), labels)


def by_name(*metrics: Metric) -> dict[str, Metric]:
    """Return *metrics* by their names without the prefix."""
    return {metric.name.removeprefix(_PREFIX): metric for metric in metrics}


_BATCH_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_TASK_BUCKETS: Final = (0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 1800, 7200)

# For every counter of work, because queues deliver at least once.
_TWICE: Final = "Work that is repeated after a redelivery counts twice."

COUNTED: Final = (
    Metric(
        "snapferry_objects_total",
        "counter",
        f"Objects by outcome, counted when a run of their batch ends. {_TWICE} For a run that will be retried, only"
        " copied objects count. The next run finds them present.",
        (WORKER,),
        ("outcome",),
        (("copied",), ("present",), ("intact",), ("failed",)),
    ),
    Metric(
        "snapferry_copied_bytes_total",
        "counter",
        f"Bytes of copied objects, as read and written. {_TWICE}",
        (WORKER,),
    ),
    Metric(
        "snapferry_verified_bytes_total",
        "counter",
        f"Bytes that were read to verify objects where they are. {_TWICE}",
        (WORKER,),
    ),
    Metric(
        "snapferry_batch_deliveries_total",
        "counter",
        "Deliveries of batches by result: ended (accounted for), retried (temporary store error), stepped_aside"
        " (another worker runs the batch), held (the job is paused), stopped (the job was cancelled or has ended),"
        " repeated (accounted for before), given_up (begun too often without an end), parked (this worker cannot reach"
        " a store), unreached (no worker can reach a store, so the objects failed).",
        (WORKER,),
        ("end",),
        tuple((end,) for end in DELIVERY_ENDS),
    ),
    Metric(
        "snapferry_batch_duration_seconds",
        "histogram",
        "Duration of runs of batches, from the check of the destination to the last object. Without cancelled runs.",
        (WORKER,),
        buckets=_BATCH_BUCKETS,
    ),
    Metric(
        "snapferry_batches_in_flight",
        "gauge",
        "Batches that the processes of this worker are copying.",
        (WORKER,),
    ),
    Metric(
        "snapferry_store_requests_total",
        "counter",
        "Requests to stores, including retries, by store (the scheme of its URL), side of the copy and operation."
        " Directory stores have no requests.",
        (WORKER, ORCHESTRATOR),
        ("store", "side", "operation"),
    ),
    Metric(
        "snapferry_errors_total",
        "counter",
        "Store errors by class: one for each object that a run of a batch could not copy, retried or not, and one for"
        " each failed step of an orchestrator. A retry of a transient error may succeed.",
        (WORKER, ORCHESTRATOR),
        ("error", "transient"),
    ),
    Metric(
        "snapferry_tasks_total",
        "counter",
        "Tasks that ran, by name and state. State retry: the task was queued again. State expected_failure: an object"
        " or the job failed, and the job's record has the reason. State failure: uncaught exception.",
        (WORKER, ORCHESTRATOR),
        ("task", "state"),
    ),
    Metric(
        "snapferry_task_duration_seconds",
        "histogram",
        "Duration of tasks, by name.",
        (WORKER, ORCHESTRATOR),
        ("task",),
        buckets=_TASK_BUCKETS,
    ),
    Metric(
        "snapferry_jobs_ended_total",
        "counter",
        "Jobs that this orchestrator ended, by final state. Without jobs that were cancelled before an orchestrator"
        " began them.",
        (ORCHESTRATOR,),
        ("state",),
        (("done",), ("failed",), ("cancelled",)),
    ),
)

BUILD_INFO: Final = Metric(
    "snapferry_build_info",
    "gauge",
    "Always 1. The labels hold the versions of snapferry, Celery and Python, and the role of this process.",
    (WORKER, ORCHESTRATOR),
    ("version", "celery", "python", "role"),
)

ORCHESTRATORS: Final = Metric(
    "snapferry_orchestrators",
    "gauge",
    "Orchestrators that announced themselves in Redis within 20 seconds. Missing while Redis does not answer.",
    (WORKER, ORCHESTRATOR),
)
