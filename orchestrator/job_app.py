"""The Celery app with the tasks of jobs: the workers' and the orchestrator's. `app` adds the schedule."""

from __future__ import annotations

from celery import Celery

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.workers.app import make_app
from snapferry.workers.settings.environment import Settings

from . import key_repair, presence, tasks
from .driving import reconcile


def make_job_app(settings: Settings, access: AccessPolicy = STRICT, *, serves: bool = True) -> Celery:
    """
    Return an app whose tasks open the stores that *access* allows. Connects to nothing. Raises `InvalidSettings`.

    A worker of it reconciles jobs and repairs keys while it runs, and announces itself if it serves the queue of
    orchestrators. An app that does not *serve* only queues tasks: see `make_app`.
    """
    app = make_app(settings, access, serves=serves)
    tasks.register(app, settings, access)
    if serves:
        key_repair.attach(app, settings)
        reconcile.attach(app, settings)
        presence.attach(app, settings)
    return app
