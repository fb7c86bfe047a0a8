"""
The worker's Celery app, as ``celery -A snapferry.worker worker -Q snapferry.copy`` finds it.

The app is made from the environment when it is first asked for. Importing this module connects to nothing and
reads nothing.
"""

from __future__ import annotations

from typing import Any

from .workers.app import app_from_environment, make_app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    app = globals()["app"] = app_from_environment(make_app, "the worker")
    return app
