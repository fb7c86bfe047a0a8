"""A task as the main process of a worker knows it: what Celery says of one there, too, says whose it is."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from snapferry.workers.telemetry.logs import about


class OfAJob(Request):
    """As Celery's, but lines about a process that died or a task that failed bear job and task."""

    def on_failure(self, *arguments: Any, **options: Any) -> Any:
        """Handle a task that raised, or whose process died."""
        ours = str(self.name).startswith("snapferry.")
        with about(job=self.root_id if ours else None, task=self.id):
            return super().on_failure(*arguments, **options)
