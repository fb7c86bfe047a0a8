"""
Pages of Flower that know about jobs.

*Broker*: Flower lists the queues of the workers that it has inspected, which are those that ran when it started. Here
the page lists all queues of the fleet, also those that no worker serves.
*Task*: the page of a job's first task, whose id is the job's id, leads to the tasks of the job that failed, with why.
*Tasks*: the table cuts long exceptions, because Flower never wraps them.

Flower has no setting for these, so its table of addresses is changed: `flower.urls.handlers`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from flower.api.tasks import GetQueueLengths
from flower.urls import handlers
from flower.views.broker import BrokerView
from flower.views.tasks import TasksDataTable, TaskView
from tornado import web
from tornado.ioloop import IOLoop

from snapferry.orchestrator.jobs import JobReader
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import shortened
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, copy_queue, lists, parking_queue
from snapferry.workers.settings.environment import Settings

log = logging.getLogger(__name__)

# Failed tasks of a job to which the page of the job's first task links.
FAILED_SHOWN: Final = 50
# Reasons that the page gives, and characters of each.
REASONS_SHOWN: Final = 10
LONGEST_REASON: Final = 300

COPY_BATCH: Final = "snapferry.copy_batch"

# Characters of an exception in the table of tasks.
EXCEPTION_SHOWN: Final = 60


def install(settings: Settings) -> None:
    """Let Flower use the views of this module. To be called before Flower starts. Raises `BrokerUnavailable`."""
    jobs = JobReader(settings)
    for shown in (BrokerView, GetQueueLengths):
        _replace(shown, _with_queues(shown, lambda: fleet_queues(jobs), QueueLengths(jobs)))
    _replace(TaskView, JobTaskView)
    _replace(TasksDataTable, TaskTable)


def fleet_queues(jobs: JobReader) -> frozenset[str]:
    """
    Return the queues of plans and batches, those that open jobs name, and the parking queues that have messages.

    Raises `BrokerUnavailable`.
    """
    open_jobs = jobs.open()
    parking = [parking_queue(status.queue, status.job_id) for status in open_jobs]
    with jobs.records() as broker, broker.pipeline(transaction=False) as pipe:
        for queue in parking:
            pipe.exists(*lists(queue))
        filled = pipe.execute() if parking else []
    used = {queue for queue, lists_filled in zip(parking, filled, strict=True) if lists_filled}
    return frozenset({PLAN_QUEUE, COPY_QUEUE, *(copy_queue(status.queue) for status in open_jobs), *used})


class JobTaskView(TaskView):
    """The page of a task; that of a job's first task links to the tasks of the job that failed."""

    def format_task(self, task: Any) -> Any:
        """Return a copy of *task* as the page shows it."""
        # Flower's copy of a task has lost its children.
        shown_as = super().format_task
        shown = shown_as(task)
        if task.name == "snapferry.plan_job":
            tasks = self.application.events.state.tasks
            others = [one for one in tasks.values() if one.root_id == task.uuid != one.uuid]
            lead_to_failed(shown, [shown_as(one) for one in others if one.state == "FAILURE"])
        return shown


def lead_to_failed(first: Any, failed: list[Any]) -> None:
    """
    Add links to the tasks *failed* to *first*, the first task of their job, and their reasons; all as pages show them.

    Batches come first: they have the causes, and the task that ended the job has the consequence.
    """
    if not failed:
        return
    failed.sort(key=lambda one: (one.name != COPY_BATCH, -_time(one)))
    first.children = failed[:FAILED_SHOWN]
    tasks_failed = f"{counted(len(failed), 'task')} of the job failed"
    first_of = f", the first {FAILED_SHOWN} are" if len(failed) > FAILED_SHOWN else ". The links are"
    lines = [f"{tasks_failed}{first_of} under Children, in this order:", *map(_line, failed[:REASONS_SHOWN])]
    if len(failed) > REASONS_SHOWN:
        lines.append("…")
    first.result = "\n".join([f"{first.result}\n", *lines])


def _time(task: Any) -> float:
    """Return when the last event of a task was. Events are from the broker, so a time may be anything."""
    return task.timestamp if isinstance(task.timestamp, float) else 0.0


def _line(task: Any) -> str:
    """Return which batch or step of its job a task that failed is, and why it failed."""
    # The job and its snapshots are the same in all lines.
    what = str(task.args).split(" · ", 2)[-1]
    return shortened(f"{what}: {task.exception}", LONGEST_REASON)


class TaskTable(TasksDataTable):
    """The rows of the table of tasks."""

    def format_task(self, task: Any) -> Any:
        """Return the id and a copy of *task*, which is a pair of these, as its row shows it."""
        task_id, shown = super().format_task(task)
        if shown.exception and len(shown.exception) > EXCEPTION_SHOWN:
            shown.exception = shown.exception[: EXCEPTION_SHOWN - 1].rstrip() + "…"
        return task_id, shown


class QueueLengths:
    """What Flower asks for the lengths of queues. Its own client knows less of TLS and of sentinels than the fleet."""

    def __init__(self, jobs: JobReader) -> None:
        self._jobs = jobs

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return name and number of messages of each queue. Raises `BrokerUnavailable`."""
        return await IOLoop.current().run_in_executor(None, self._lengths, list(names))

    def _lengths(self, names: list[str]) -> list[dict[str, Any]]:
        if not names:
            return []
        with self._jobs.records() as broker, broker.pipeline(transaction=False) as pipe:
            for name in names:
                for key in lists(name):
                    pipe.llen(key)
            found = iter(pipe.execute())
        return [{"name": name, "messages": sum(int(next(found)) for _ in lists(name))} for name in names]


def _with_queues(shown: Any, queues: Callable[[], frozenset[str]], lengths: QueueLengths) -> Any:
    """Return a view like *shown* that also lists *queues*, with their *lengths*."""

    class WithQueues(shown):
        of_fleet = frozenset({PLAN_QUEUE, COPY_QUEUE})

        @web.authenticated
        async def get(self) -> None:
            try:
                self.of_fleet = await IOLoop.current().run_in_executor(None, queues)
            except BrokerUnavailable as error:
                log.warning("cannot list the queues of open jobs: %s", error)
            await super().get()

        def get_broker(self) -> QueueLengths:
            """Return what lists the lengths of queues."""
            return lengths

        def get_active_queue_names(self) -> list[str]:
            """Return the names of the queues to list, in order."""
            return sorted({*super().get_active_queue_names(), *self.of_fleet})

    return WithQueues


def _replace(shown: Any, view: Any) -> None:
    """Let *view* answer the addresses of *shown* in Flower's table, whose entries are rules or pairs."""
    (at,) = (at for at, handler in enumerate(handlers) if _view(handler) is shown)
    handler = handlers[at]
    if isinstance(handler, tuple):
        handlers[at] = (handler[0], view)
    else:
        handlers[at] = web.url(handler.regex.pattern, view, name=handler.name)


def _view(handler: Any) -> Any:
    return handler[1] if isinstance(handler, tuple) else handler.handler_class
