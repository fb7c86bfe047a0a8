"""What a command without a broker imports, and how often it searches the installed packages."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import json
import subprocess
import sys
import threading
from importlib import import_module
from typing import Any

import pytest
from celery import signals
from celery.utils.dispatch import Signal

from snapferry.orchestrator.quick_imports import NOT_NEEDED, quick_imports
from snapferry.workers.app import make_app
from snapferry.workers.broker.connection import client, fail_fast_client
from snapferry.workers.lifecycle import garbage
from snapferry.workers.settings.environment import Settings
from tests.integration.processes import PATIENCE_S

# Run in a fresh interpreter: the imports of a sync and of its embedded fleet.
SYNC = """
import gc, json, sys

from snapferry.orchestrator.cli.lazy import load
load("commands.copy:sync"), load("run.copy:sync", quickly=True)
from snapferry.orchestrator.embedded import share_imports
share_imports()

from celery.app.backends import by_name
by_name("redis", extension_namespace="celery.result_backends")
print(json.dumps({
    "modules": sorted(sys.modules),
    "deferred": [name for name, module in sys.modules.items() if type(module).__name__ == "Deferred"],
    "collects": gc.isenabled(),
    "frozen": gc.get_freeze_count(),
}))
"""

# Libraries of other commands, of S3, and of formats and exporters that nothing turns on.
NEEDLESS = {
    "apprise", "boto3", "botocore", "cffi", "dateutil.tz.tz", "email.message", "flower", "importlib.resources",
    "jinja2", "numpy", "opentelemetry.metrics", "prometheus_client", "re2", "redis.asyncio.client", "rich", "tornado",
    "urllib3", "yaml", "zipfile",
}  # fmt: skip


@pytest.mark.parametrize(
    "options", [{}, {"frozen": True}, {"frozen": True, "slots": True}, {"order": True}], ids=str
)
def test_dataclasses_are_as_always(options: dict[str, bool]) -> None:
    """Those methods that are compiled late behave like those that are not."""

    def made() -> Any:
        @dataclasses.dataclass(**options)
        class Point:
            x: int
            y: str = "y"

        return Point

    plain = made()
    with quick_imports():
        quick = made()

    def behaves(kind: Any) -> list[object]:
        one = kind(1)
        found: list[object] = [repr(one).rpartition(".")[2], repr(one).rpartition(".")[2], one == kind(1)]
        found += [one == kind(2), one == 1, kind.__hash__ is None or hash(one) == hash(kind(1))]
        found += [
            kind.__repr__.__name__,
            kind.__eq__.__name__,
            inspect.signature(kind) == inspect.signature(plain),
        ]
        for change in (lambda: setattr(one, "x", 3), lambda: delattr(one, "x"), lambda: kind(1) < kind(2)):
            try:
                found.append(change())
            except Exception as error:
                found.append(type(error))
        return found

    assert behaves(quick) == behaves(plain)
    assert made().__eq__.__closure__ is None


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", SYNC], capture_output=True, text=True, timeout=240, check=True
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_sync_between_directories_imports_no_library_that_it_does_not_need(
    imported: dict[str, Any],
) -> None:
    assert not NEEDLESS & set(imported["modules"])
    assert {"celery.apps.worker", "kombu.transport.redis", "redis"} <= set(imported["modules"])


def test_the_installed_packages_are_not_searched_for_plug_ins_of_libraries(imported: dict[str, Any]) -> None:
    """The search would execute the module."""
    assert "importlib.metadata" in imported["deferred"]


def test_what_was_imported_is_out_of_the_garbage_collector_s_way(imported: dict[str, Any]) -> None:
    assert imported["collects"]
    # Thousands of functions, classes and dicts for each library.
    assert imported["frozen"] > 50_000


def test_a_library_that_was_left_out_can_be_imported_afterwards() -> None:
    for name in NOT_NEEDED:
        sys.modules.pop(name, None)

    with quick_imports():
        for name in NOT_NEEDED:
            with pytest.raises(ImportError):
                import_module(name)

    assert import_module("yaml").safe_load("a: 1") == {"a": 1}


def test_a_library_that_is_imported_already_stays_imported() -> None:
    yaml = import_module("yaml")

    with quick_imports():
        assert import_module("yaml") is yaml
    assert sys.modules["yaml"] is yaml


def test_an_error_in_the_block_leaves_everything_as_it_was() -> None:
    collects = gc.isenabled()

    with pytest.raises(KeyError), quick_imports():
        raise KeyError

    assert gc.isenabled() is collects
    assert not any(name in sys.modules and sys.modules[name] is None for name in NOT_NEEDED)


def test_no_connection_looks_for_the_version_of_its_library() -> None:
    url = "redis://127.0.0.1:1/0"
    app = make_app(Settings(broker_url=url))

    with client(url) as one, fail_fast_client(url, 1) as other:
        for found in (one, other):
            assert found.connection_pool.connection_kwargs["driver_info"] is None
    assert app.backend.client.connection_pool.connection_kwargs["driver_info"] is None
    assert "driver_info" not in app.backend.connparams


def test_a_worker_collects_garbage_that_python_leaves_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "COLLECT_S", 0.01)
    collected = threading.Event()
    monkeypatch.setattr(gc, "collect", lambda *_: collected.set())
    garbage.attach()

    signals.worker_ready.send(sender=_OtherWorker())
    threads = threading.active_count()
    signals.worker_ready.send(sender=_OtherWorker())

    assert collected.wait(PATIENCE_S)
    assert threading.active_count() <= threads


class _OtherWorker:
    app = None


@pytest.mark.parametrize("begins", [signals.worker_before_create_process, signals.worker_ready])
def test_memory_is_frozen_once_whatever_the_pool_and_however_many_processes_are_forked(
    monkeypatch: pytest.MonkeyPatch, begins: Signal
) -> None:
    make_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("frozen"))
    monkeypatch.setattr(gc, "get_freeze_count", lambda: pytest.fail("visits all frozen objects"))

    for _ in range(3):
        begins.send(sender=_OtherWorker())

    assert frozen == ["frozen"]
