"""
The Celery app of the whole fleet: the workers' tasks and the orchestrator's.

``celery -A orchestrator.app worker -Q snapferry.plan`` and ``celery -A
orchestrator.app flower`` find the app here; it is made from the environment when
it is first asked for, and importing this module connects to nothing.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from stores.access import STRICT, AccessPolicy
from workers.access import access_policy
from workers.app import make_app
from workers.settings import InvalidSettings, Settings

from . import reconcile, tasks


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


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    try:
        settings = Settings.from_environment()
        app = make_fleet_app(settings, access_policy(settings, "the orchestrator"))
    except InvalidSettings as error:
        raise SystemExit(f"snapferry: {error}") from None
    globals()["app"] = app
    return app
