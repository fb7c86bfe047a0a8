"""
The fleet's Celery app, as ``celery -A snapferry.orchestrator worker -Q snapferry.plan`` finds it.

Celery looks for the app of a package in its module `celery`. The app is made from the environment when it is first
asked for. Importing this module connects to nothing and reads nothing.
"""

from __future__ import annotations

from typing import Any

from snapferry.workers.app import app_from_environment

from .app import make_fleet_app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    app = globals()["app"] = app_from_environment(make_fleet_app, "the orchestrator")
    return app
