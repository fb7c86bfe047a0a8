"""What is counted of a batch, in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals

from snapferry.stores.address import parse_address
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import StoreError, StoreUnavailable
from snapferry.stores.features import Priced
from snapferry.stores.requests import GET, LIST, Requests
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.settle import ObjectsFailed
from snapferry.workers.ledger import Begun
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.telemetry.metrics import counters
from snapferry.workers.telemetry.metrics.catalogue import DELIVERY_ENDS

ADDRESS = "0" * 64


@pytest.fixture(autouse=True)
def _counting() -> Iterator[None]:
    counters.enable("worker", ["snapferry.copy_batch"])
    yield
    counters._metrics.clear()
    signals.task_prerun.disconnect(counters._task_begins)
    signals.task_postrun.disconnect(counters._task_ended)


def value(name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels."""
    (family,) = counters._metrics[name.removesuffix("_count").removesuffix("_sum")].collect()
    samples = [s for s in family.samples if s.name == name and labels.items() <= s.labels.items()]
    assert samples, f"no {name} {labels}"
    return float(sum(sample.value for sample in samples))


def objects() -> tuple[float, ...]:
    return tuple(value("snapferry_objects_total", outcome=end) for end in ("copied", "present", "failed"))


def failure(error: str, *, transient: bool) -> Failure:
    return Failure(parse_address(ADDRESS), error, "s3://bucket", "no", transient)


def test_a_run_counts_each_object_once() -> None:
    lost = [failure("ObjectMissing", transient=False)] * 2
    outcome = BatchOutcome(copied=5, present=3, bytes_copied=77, failures=lost)

    counters.ran(outcome, 0.2, again=False)

    assert objects() == (5, 3, 2)
    assert value("snapferry_copied_bytes_total") == 77
    assert value("snapferry_errors_total", error="ObjectMissing", transient="false") == 2
    assert value("snapferry_batch_deliveries_total", end="ended") == 1
    assert value("snapferry_batch_duration_seconds_sum") == pytest.approx(0.2)


def test_of_a_run_that_is_tried_again_only_what_it_copied_counts() -> None:
    passing = [failure("StoreUnavailable", transient=True)] * 4
    counters.ran(BatchOutcome(copied=5, present=3, bytes_copied=50, failures=passing), 0.2, again=True)

    assert objects() == (5, 0, 0)
    assert value("snapferry_batch_deliveries_total", end="retried") == 1

    counters.ran(BatchOutcome(copied=4, present=8, bytes_copied=40), 0.2, again=False)

    assert objects() == (9, 8, 0)
    assert value("snapferry_copied_bytes_total") == 90
    assert value("snapferry_errors_total", error="StoreUnavailable", transient="true") == 4


@pytest.mark.parametrize(
    ("begun", "end"),
    [
        (Begun(accounted=True), "repeated"),
        (Begun(stopped=True), "stopped"),
        (Begun(paused=True), "held"),
        (Begun(holder="another"), "stepped_aside"),
        (Begun(times=1), ""),
    ],
)
def test_a_delivery_that_is_not_run_counts_by_its_reason(begun: Begun, end: str) -> None:
    counters.delivered(begun)

    counted = {one: value("snapferry_batch_deliveries_total", end=one) for one in DELIVERY_ENDS}
    assert {one for one, count in counted.items() if count} == ({end} if end else set())


def test_a_batch_that_was_given_up_has_failed_objects_and_no_run() -> None:
    counters.gave_up(BatchOutcome(failures=[failure("StoreFault", transient=False)] * 3))

    assert objects() == (0, 0, 3)
    assert value("snapferry_batch_deliveries_total", end="given_up") == 1
    assert value("snapferry_batch_duration_seconds_count") == 0


def test_a_batch_is_in_flight_until_it_ends_however_it_does() -> None:
    with pytest.raises(KeyboardInterrupt), counters.running():
        assert value("snapferry_batches_in_flight") == 1
        raise KeyboardInterrupt
    assert value("snapferry_batches_in_flight") == 0


class Charged(MemoryBackend, Priced):
    """Says that it was sent requests, as a store of another kind."""

    def __init__(self, kind: str, sent: dict[str, int]) -> None:
        super().__init__()
        self.label = f"{kind}://somewhere/with/a/path"
        self._sent = Requests(sent)

    def requests_to_read(self, size: int) -> Requests:
        return Requests()

    def requests_to_write(self, size: int) -> Requests:
        return Requests()

    @property
    def requests_sent(self) -> Requests:
        return self._sent.copy()


def test_requests_count_by_kind_side_and_operation_also_where_the_pools_are_split() -> None:
    source = SnapshotStore(Charged("s3", {GET: 3}), Charged("gs", {GET: 1}))
    destination = SnapshotStore(Charged("s3", {LIST: 2}))

    with pytest.raises(StoreUnavailable), counters.requests_of(source, destination):
        raise StoreUnavailable("s3://bucket", "", "later")

    (family,) = counters._metrics["snapferry_store_requests_total"].collect()
    assert {
        tuple(sample.labels.values()): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    } == {
        ("s3", "source", GET): 3,
        ("gs", "source", GET): 1,
        ("s3", "destination", LIST): 2,
    }


def test_every_class_of_error_is_exported_before_it_happens() -> None:
    def leaves(kind: type[StoreError]) -> set[str]:
        return {kind.__name__}.union(*(leaves(child) for child in kind.__subclasses__()))

    for name in leaves(StoreError) - {"StoreError"}:
        assert value("snapferry_errors_total", error=name) == 0


def test_tasks_count_by_name_and_state_and_foreign_ones_do_not() -> None:
    class Ours:
        name = "snapferry.copy_batch"

    class Foreign:
        name = "celery.chord_unlock"

    for sender, state in ((Ours, "SUCCESS"), (Ours, "RETRY"), (Foreign, "SUCCESS")):
        signals.task_prerun.send(sender=sender, task_id="t")
        signals.task_postrun.send(sender=sender, task_id="t", state=state)

    assert value("snapferry_tasks_total", task=Ours.name, state="success") == 1
    assert value("snapferry_tasks_total", task=Ours.name, state="retry") == 1
    assert value("snapferry_task_duration_seconds_count") == 2


def test_a_task_that_reports_failed_objects_is_no_unexpected_failure() -> None:
    class Ours:
        name = "snapferry.copy_batch"
        throws = (ObjectsFailed,)

    class Other:
        name = "snapferry.run_mirror"

    for sender, error in (
        (Ours, ObjectsFailed("2 objects failed")),
        (Ours, RuntimeError("surprise")),
        (Other, ObjectsFailed("of no concern here")),
        (Other, None),
    ):
        signals.task_prerun.send(sender=sender, task_id="t")
        signals.task_postrun.send(sender=sender, task_id="t", state="FAILURE", retval=error)

    assert value("snapferry_tasks_total", task=Ours.name, state="expected_failure") == 1
    assert value("snapferry_tasks_total", task=Ours.name, state="failure") == 1
    assert value("snapferry_tasks_total", task=Other.name, state="failure") == 2


def test_metrics_that_cannot_be_written_do_not_fail_the_work(caplog: pytest.LogCaptureFixture) -> None:
    class Full:
        def inc(self, amount: float) -> None:
            raise OSError("no space left")

    full: Any = Full()
    counters._metrics["snapferry_copied_bytes_total"] = full

    for _ in range(2):
        counters.ran(BatchOutcome(copied=1, bytes_copied=1), 0.1, again=False)

    assert [record.getMessage() for record in caplog.records] == ["metrics disabled: OSError: no space left"]


def test_counting_a_batch_takes_less_than_a_hundredth_of_a_small_one() -> None:
    outcome = BatchOutcome(
        copied=990, present=5, bytes_copied=10**6, failures=[failure("A", transient=False)] * 5
    )
    source = SnapshotStore(Charged("s3", {GET: 1000}))
    destination = SnapshotStore(Charged("s3", {LIST: 1}))

    def one() -> float:
        before = time.process_time()
        for _ in range(100):
            with counters.running(), counters.requests_of(source, destination):
                pass
            counters.ran(outcome, 0.2, again=False)
        return (time.process_time() - before) / 100

    # A thousand small objects between two directories are 0.2 s at the very least.
    assert min(one() for _ in range(5)) < 0.002
