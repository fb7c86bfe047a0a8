"""
The Celery app of the whole fleet: the tasks of workers, of jobs, of mirrors and of scrubs.

Importing this module connects to nothing. `snapferry.orchestrator.celery` makes the app from the environment.
"""

from __future__ import annotations

from celery import Celery

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.workers.settings.environment import Settings

from .job_app import make_job_app
from .notify.attach import attach_watcher
from .schedules import task


def make_fleet_app(settings: Settings, access: AccessPolicy = STRICT) -> Celery:
    """Return the app of the whole fleet; otherwise as `job_app.make_job_app`."""
    app = make_job_app(settings, access)
    task.register(app, settings)
    attach_watcher(app, settings)
    return app
