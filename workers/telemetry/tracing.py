"""
OpenTelemetry traces, if the environment names a collector: one trace for each job, one span for each of its tasks.

The id of a trace is the id of its job. Celery's own instrumentation traces the tasks. The first message of a job, and
each message that starts its driver again, has a trace header in plain text. So submitting a job needs no OpenTelemetry
packages.

Child processes trace, not the main process: only they run tasks, and the thread of an exporter does not survive a fork.

Functions import the packages of OpenTelemetry: they are optional, and slow to import.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from celery import signals

from snapferry.stores.runtime.liveness import identity
from snapferry.workers.extras import explained
from snapferry.workers.ledger import Ledger

# W3C trace context: version 00, sampled.
_HEADER: Final = "traceparent"


def header(job_id: str) -> dict[str, str]:
    """Return the header that makes a task, which no other task has queued, part of its job's trace."""
    try:
        trace_id, span_id = _ids(job_id)
    except ValueError:
        return {}
    return {_HEADER: f"00-{trace_id:032x}-{span_id:016x}-01"}


def attach(role: str) -> None:
    """
    Trace the tasks that forked children of this process run. Call this once.

    Raises `NotInstalled` if their packages are missing; then nothing is traced.
    """
    try:
        # Imported once, before the children are forked.
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.instrumentation.celery
        import opentelemetry.sdk.trace.export  # noqa: F401 - all three
    except ModuleNotFoundError as error:
        raise explained(error, "no traces: OTEL_EXPORTER_OTLP_ENDPOINT") or error from None
    signals.worker_process_init.connect(lambda **_: _begin(role), weak=False)
    signals.worker_process_shutdown.connect(_end, weak=False)


def set_attributes(**attributes: str | float) -> None:
    """Set attributes of the running task's span. They must hold no secrets, because traces are shown."""
    if _tracing is not None:
        from opentelemetry import trace

        trace.get_current_span().set_attributes({f"snapferry.{name}": of for name, of in attributes.items()})


def job_ended(ledger: Ledger, job_id: str) -> None:
    """Add the span of a whole job, from its submission to its end. It is the parent of all other spans."""
    if _tracing is None:
        return
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Status, StatusCode

    try:
        trace_id, span_id = _ids(job_id)
    except ValueError:
        return
    status = ledger.status(job_id)
    provider = TracerProvider(id_generator=_Fixed(trace_id, span_id), resource=_tracing.provider.resource)
    provider.add_span_processor(_tracing.processor)
    span = provider.get_tracer("snapferry").start_span(
        "job", context=Context(), start_time=int(status.submitted_at * 1e9)
    )
    counts = {
        name: getattr(status, name)
        for name in (
            "objects_total",
            "copied",
            "present",
            "failed",
            "bytes_copied",
            "snapshots_total",
            "snapshots_published",
        )
    }
    span.set_attributes(
        {
            f"snapferry.{name}": of
            for name, of in {"job_id": job_id, "state": status.state.value, **counts}.items()
        }
    )
    if status.error:
        span.set_status(Status(StatusCode.ERROR, status.state.value))
    span.end(int(status.ended_at * 1e9))


@dataclass
class _Tracing:
    provider: Any
    processor: Any


_tracing: _Tracing | None = None


class _Fixed:
    """An id generator that gives the only span of a provider the ids that the tasks' spans refer to."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self._ids = trace_id, span_id

    def generate_trace_id(self) -> int:
        return self._ids[0]

    def generate_span_id(self) -> int:
        return self._ids[1]

    def is_trace_id_random(self) -> bool:
        return True


def _ids(job_id: str) -> tuple[int, int]:
    """Return the ids of a job's trace and of its first span. Raises ValueError for another text than a UUID."""
    number = uuid.UUID(job_id).int
    return number, number & (1 << 64) - 1


def _begin(role: str) -> None:
    global _tracing
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {
        "service.name": f"snapferry-{role}",
        "service.version": version("snapferry"),
        "service.instance.id": identity(),
    }
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence.
    provider = TracerProvider(resource=Resource(own).merge(OTELResourceDetector().detect()))
    processor = BatchSpanProcessor(OTLPSpanExporter())
    provider.add_span_processor(processor)
    CeleryInstrumentor().instrument(tracer_provider=provider)
    _tracing = _Tracing(provider, processor)


def _end(**_: Any) -> None:
    if _tracing is not None:
        _tracing.provider.shutdown()
