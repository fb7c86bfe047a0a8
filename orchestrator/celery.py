"""
The fleet's Celery app, as ``celery -A snapferry.orchestrator worker -Q snapferry.plan`` finds it.

Celery looks for the app of a package in its module `celery`. The app is made from the environment when it is first
asked for. Importing this module connects to nothing and reads nothing.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

from snapferry.workers.app import app_from_environment
from snapferry.workers.extras import NotInstalled, require
from snapferry.workers.queues import PLAN_QUEUE

from .app import make_fleet_app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    app: Celery = app_from_environment(make_fleet_app, "the orchestrator")
    globals()["app"] = app
    signals.celeryd_init.connect(_check_packages, weak=False)
    return app


def _check_packages(options: dict[str, Any] | None = None, **_: Any) -> None:
    """End a worker that plans jobs but lacks a package for it. Other commands of Celery do without."""
    if PLAN_QUEUE not in ((options or {}).get("queues") or ()):
        return
    try:
        require("orchestrator", "the orchestrator")
    except NotInstalled as error:
        raise SystemExit(f"snapferry: {error}") from None
