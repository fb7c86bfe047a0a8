"""
The class of the Celery app.

It connects through `transport`, and makes an argument of a task when the task is queued. Every task of a job has the
job's id as its root id and as its parent id.

Celery passes both ids on from a task to the tasks that it queues, except to a chord's errback, and the batches of a
later window would have a commit as their parent. Here they follow from the arguments of a task, whoever queues it. So
in Flower each task of a job leads to the first one, whose id is the job's id, and that one leads to all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

from celery import Celery

from snapferry.workers.messages import is_job_id

from .fork_gate import queueing
from .transport import own_url

# Tasks whose first argument is the id of a job, or a message that has it.
_TASKS_OF_JOBS: Final = frozenset(
    f"snapferry.{name}"
    for name in ("plan_job", "copy_batch", "copy_parts", "commit_snapshots", "look_after_job")
)


class Later:
    """
    An argument of a task that *make* returns when the task is queued.

    The first task of a chord is queued, and may run, before the arguments of the others are made.
    """

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    def __deepcopy__(self, memo: object) -> Self:
        # Celery copies signatures.
        return self

    def made(self) -> dict[str, Any]:
        """Return the argument."""
        return self._make()


class JobCelery(Celery):
    """A Celery app that makes arguments of tasks, and sets the root id and the parent id of the tasks of jobs."""

    def _connection(self, url: str, *rest: Any, **options: Any) -> Any:
        # All connections of an app are made here.
        return super()._connection(own_url(url), *rest, **options)

    def send_task(self, name: str, args: Any = None, *rest: Any, **options: Any) -> Any:
        """Queue a task, as `celery.Celery.send_task` does. All other ways to queue a task end here."""
        if args:
            args = tuple(each.made() if isinstance(each, Later) else each for each in args)
        job_id = job_of(name, args)
        if job_id and options.get("task_id") != job_id:
            options.update(root_id=job_id, parent_id=job_id)
        with queueing():
            return super().send_task(name, args, *rest, **options)


def job_of(name: str, args: Any) -> str:
    """Return the id of the job that the task *name* with these arguments is for, "" if it is for none."""
    if name not in _TASKS_OF_JOBS or not isinstance(args, list | tuple) or not args:
        return ""
    first = args[0]
    found = first.get("job_id") if isinstance(first, dict) else first
    return found if isinstance(found, str) and is_job_id(found) else ""
