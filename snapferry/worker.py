"""
The worker's Celery app, as ``celery -A snapferry.worker worker -Q snapferry.copy`` finds it.

The app is made from the environment when it is first asked for. Importing this module connects to nothing and
reads nothing.
"""

from __future__ import annotations

from typing import Any

from .workers.app import make_app
from .workers.settings.access import access_policy
from .workers.settings.environment import InvalidSettings, Settings


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    try:
        settings = Settings.from_environment()
        app = make_app(settings, access_policy(settings, "the worker"))
    except InvalidSettings as error:
        raise SystemExit(f"snapferry: {error}") from None
    globals()["app"] = app
    return app
