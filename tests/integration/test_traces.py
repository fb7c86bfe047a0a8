"""Traces: a fleet sends them to a collector over HTTP, which decodes them as OpenTelemetry's own protobuf messages."""

from __future__ import annotations

import gzip
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings, traces_wanted
from snapferry.workers.telemetry import tracing
from tests.sample import make_store, random_files

from .processes import PATIENCE_S, Fleet, until

# Part of the extra `otel`; the messages' own definition.
trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector:
    """What was received: one (service, span) for each span."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.raw = b""
        self.endpoint = ""

    def take(self, body: bytes) -> None:
        self.raw += body
        for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            service = attributes(resource.resource)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [(service, span) for span in scope.spans]

    def named(self, name: str) -> list[Any]:
        return [span for _, span in list(self.spans) if span.name == name]


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run an OTLP/HTTP receiver."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def traced(
    redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Collector, JobStatus]]:
    """A job of three batches with an object that is missing, traced; and its record."""
    folder = tmp_path_factory.mktemp("traced")
    files = random_files(120)
    snapshot = make_store(folder / "a", files)
    (folder / "a" / object_key(digest(files["./dir 1/file-00001"]))).unlink()
    # What other tests left open there would be looked after, and traced, as well.
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    jobs = Jobs(Settings(broker_url=redis_server, batch_objects=50))
    with collecting() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        }
        fleet = Fleet(redis_server, folder, environment)
        with fleet.orchestrator() as orchestrator, fleet.worker() as worker:
            job_id = jobs.submit(JobSpec.of(*store_pair(str(folder / "a"), str(folder / "b")), [snapshot]))
            ended = jobs.wait(job_id, timeout_s=PATIENCE_S)
            # What is left to be sent is sent at the end.
            for member in (worker, orchestrator):
                member.process.send_signal(signal.SIGTERM)
                assert member.process.wait(PATIENCE_S) == 0, member.logged()
        until(lambda: collector.named("job"), "the job's span has come")
        yield collector, ended


@pytest.mark.slow
def test_a_job_is_one_trace_that_its_id_finds_and_every_span_hangs_on_the_jobs(
    traced: tuple[Collector, JobStatus],
) -> None:
    collector, ended = traced
    (job,) = collector.named("job")

    assert {span.trace_id for _, span in collector.spans} == {uuid.UUID(ended.job_id).bytes}
    assert job.parent_span_id == b""
    known = {span.span_id for _, span in collector.spans}
    assert len(known) == len(collector.spans)
    for _, span in collector.spans:
        assert span is job or span.parent_span_id in known, span.name
    (plan,) = collector.named("run/snapferry.plan_job")
    assert plan.parent_span_id == job.span_id
    assert (
        job.start_time_unix_nano
        <= plan.start_time_unix_nano
        < plan.end_time_unix_nano
        <= job.end_time_unix_nano
    )


def test_each_batch_and_commit_is_a_span_of_the_service_that_ran_it_and_says_what_came_of_it(
    traced: tuple[Collector, JobStatus],
) -> None:
    collector, ended = traced
    batches = [attributes(span) for span in collector.named("run/snapferry.copy_batch")]

    assert {service for service, span in collector.spans if span.name == "run/snapferry.copy_batch"} == {
        "snapferry-worker"
    }
    assert {service for service, span in collector.spans if span.name == "run/snapferry.plan_job"} == {
        "snapferry-orchestrator"
    }
    assert sorted(batch["snapferry.batch"] for batch in batches) == ["plan:0", "plan:1", "plan:2"]
    assert {batch["snapferry.job_id"] for batch in batches} == {ended.job_id}
    for name, total in (("copied", 120), ("present", 0), ("failed", 1), ("bytes_copied", ended.bytes_copied)):
        assert sum(batch[f"snapferry.{name}"] for batch in batches) == total
    assert collector.named("run/snapferry.commit_snapshots")
    (job,) = collector.named("job")
    assert attributes(job) == {
        "snapferry.job_id": ended.job_id,
        "snapferry.state": State.FAILED.value,
        "snapferry.objects_total": 121,
        "snapferry.copied": 120,
        "snapferry.present": 0,
        "snapferry.failed": 1,
        "snapferry.bytes_copied": ended.bytes_copied,
        "snapferry.snapshots_total": 1,
        "snapferry.snapshots_published": 0,
    }
    # The code of an error.
    assert job.status.code == 2


def test_traces_hold_no_arguments_and_no_store_but_in_the_reason_of_a_failure(
    traced: tuple[Collector, JobStatus],
) -> None:
    """A batch of which an object failed says which, at which store, as it does in Flower and in the log."""
    collector, ended = traced

    assert ended.source.encode() in collector.raw
    assert ended.destination.encode() not in collector.raw
    assert b"redis://" not in collector.raw


def test_a_collector_that_is_away_holds_up_no_job(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))
    fleet = Fleet(redis_url, tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    with fleet.orchestrator(), fleet.worker():
        ended = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)

    assert ended.code == 0, ended.err


def test_without_the_extra_a_worker_says_so_in_a_line_and_works(redis_url: str, tmp_path: Path) -> None:
    fleet = Fleet(redis_url, tmp_path, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    with fleet.worker(before="import sys; sys.modules['opentelemetry.exporter'] = None") as worker:
        said = worker.logged()

    assert (
        "snapferry: no traces: OTEL_EXPORTER_OTLP_ENDPOINT needs opentelemetry, which is not installed"
        in said
    )
    assert "pip install 'snapferry[otel]'" in said


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))
    fleet = Fleet(redis_url, tmp_path)
    absent = "import sys; sys.modules['opentelemetry'] = None"
    with fleet.orchestrator(before=absent), fleet.worker(before=absent):
        ended = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)

    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_opentelemetrys_own_variables_decide(environ: dict[str, str], wanted: bool) -> None:
    assert traces_wanted(environ) is wanted


def test_the_header_of_a_job_has_its_id_and_what_is_no_id_has_none() -> None:
    job_id = "0af76519-16cd-43dd-8448-eb211c80319c"

    assert tracing.header(job_id) == {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-8448eb211c80319c-01"
    }
    assert tracing.header("job") == {}
