"""The request of a task in the main process of a worker, with job and task in its log lines."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from snapferry.workers.telemetry.logs import about


class JobRequest(Request):
    """As Celery's `Request`, but the log lines of a failed task or a dead process name the job and the task."""

    def on_failure(self, *arguments: Any, **options: Any) -> Any:
        """Handle a task that raised, or whose process died."""
        is_ours = str(self.name).startswith("snapferry.")
        with about(job=self.root_id if is_ours else None, task=self.id):
            return super().on_failure(*arguments, **options)
