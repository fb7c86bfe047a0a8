"""
The fleet's Celery app, as ``celery -A snapferry.orchestrator worker -Q snapferry.plan`` finds it.

Celery looks for the app of a package in its module `celery`. The app is made from the environment when it is first
asked for. Importing this module connects to nothing and reads nothing.
"""

from __future__ import annotations

from typing import Any

from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .app import make_fleet_app


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
