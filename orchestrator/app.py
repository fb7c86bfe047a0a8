"""
The Celery app of the whole fleet: the workers' tasks and the orchestrator's.

Importing this module connects to nothing. `snapferry.orchestrator.celery` makes the app from the environment.
"""

from __future__ import annotations

from celery import Celery

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.workers.app import make_app
from snapferry.workers.settings.environment import Settings

from . import tasks
from .driving import reconcile


def make_fleet_app(settings: Settings, access: AccessPolicy = STRICT) -> Celery:
    """
    Return the app with the tasks of both floors, which open what *access* allows. Connects to nothing.

    Raises `InvalidSettings`.

    A worker of it that takes the orchestrator's tasks looks after jobs as well.
    """
    app = make_app(settings, access)
    tasks.register(app, settings, access)
    reconcile.attach(app, settings)
    return app
