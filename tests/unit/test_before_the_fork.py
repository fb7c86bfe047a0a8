"""What the main process of a worker has imported before it forks processes and starts threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Celery sends the signal before the pool starts.
START = """
import sys
from importlib import import_module
from unittest.mock import Mock
from celery import signals
from snapferry.workers.settings.environment import Settings
broker, module, make = sys.argv[1:]
app = getattr(import_module(module), make)(Settings(broker_url=broker))
backend = app.conf.result_backend.partition(":")[0]
before = backend in sys.modules
signals.worker_init.send(sender=Mock(app=app))
print(before, backend in sys.modules)
"""


@pytest.mark.parametrize(
    ("module", "make"),
    [("snapferry.workers.app", "make_app"), ("snapferry.orchestrator.app", "make_fleet_app")],
)
def test_the_result_backend_is_imported_before_the_fork(redis_url: str, module: str, make: str) -> None:
    """A process that is forked while a thread imports it would wait for that import for ever."""
    command = [sys.executable, "-c", START, redis_url, module, make]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert ended.stdout.split() == ["False", "True"]
