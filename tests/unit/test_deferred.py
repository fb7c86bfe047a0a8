"""Modules that are executed at their first use."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.deferred import defer

# In a fresh interpreter, as in a command: what Celery, kombu and pydantic see, then what others see.
REAL = """
import json, sys
from snapferry.orchestrator.deferred import Deferred, defer_unused
defer_unused()
defer_unused()
from importlib import metadata
from importlib.metadata import entry_points, version
found = {"left out": [len(list(entry_points(group=group))) for group in (
    "celery.result_backends", "kombu.matchers", "kombu.serializers", "pydantic")]}
import redis, celery
found["redis"] = version("redis")
found["celery"] = version("celery")
found["deferred"] = sorted(name for name, module in sys.modules.items() if type(module) is Deferred)
import click
found["click"] = version("click")
import redis.asyncio.client
found["still deferred"] = type(redis.asyncio) is Deferred
found["console"] = sorted(entry.name for entry in entry_points(group="console_scripts"))
found["snapferry"] = version("snapferry")
found["missing"] = False
try:
    version("no-such-package-at-all")
except metadata.PackageNotFoundError:
    found["missing"] = True
from celery.app.base import isoparse
found["year"] = isoparse("2026-11-28T10:00:00Z").year
found["asyncio"] = redis.asyncio.Redis.__module__
import tomllib
found["toml"] = tomllib.loads("a = 1")["a"]
import celery.utils.time
found["zones"] = bool(celery.utils.time.dateutil_tz.tzutc())
found["left"] = sorted(name for name, module in sys.modules.items() if type(module) is Deferred)
print(json.dumps(found))
"""


def test_in_a_command_they_are_what_they_always_are() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", REAL], capture_output=True, text=True, timeout=240, check=True
    )
    found = json.loads(ended.stdout)

    assert found["deferred"] == [
        "dateutil.parser",
        "dateutil.tz",
        "importlib.metadata",
        "redis.asyncio",
        "tomllib",
    ]
    assert found["left"] == []
    assert found["left out"] == [0, 0, 0, 0]
    assert found["console"] == sorted(one.name for one in metadata.entry_points(group="console_scripts"))
    assert found["still deferred"]
    for name in ("redis", "celery", "click", "snapferry"):
        assert found[name] == metadata.version(name)
    assert found["missing"]
    assert (found["year"], found["toml"], found["zones"]) == (2026, 1, True)
    assert found["asyncio"] == "redis.asyncio.client"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package with a module ``below``. Executing it appends to ``executed`` of the module ``sys``."""
    name = f"deferred_sample_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("import sys\nsys.executed.append(__name__)\nvalue = 1\n")
    (folder / "below.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "executed", [], raising=False)
    for each in (name, f"{name}.below"):
        monkeypatch.delitem(sys.modules, each, raising=False)
    return name


def executed() -> list[str]:
    found: list[str] = vars(sys)["executed"]
    return found


def test_a_module_is_executed_once_when_it_is_asked_for_what_it_does_not_have(package: str) -> None:
    defer(package)
    module = import_module(package)
    assert executed() == []

    assert module.value == 1
    assert module.value == 1
    assert executed() == [package]
    assert type(module) is type(sys)
    with pytest.raises(AttributeError):
        _ = module.other


def test_a_module_below_is_found_without_that(package: str) -> None:
    defer(package)

    below = import_module(f"{package}.below")

    assert below.value == 2
    assert executed() == []
    assert import_module(package).below is below


def test_modules_below_may_import_each_other_before_the_package_was_executed(
    package: str, tmp_path: Path
) -> None:
    """So do `redis.asyncio.client` and `redis.asyncio.sentinel`."""
    (tmp_path / package / "__init__.py").write_text(
        f"import sys\nsys.executed.append(__name__)\nfrom {package}.below import value\n"
    )
    (tmp_path / package / "below.py").write_text(f"from {package} import beside\nvalue = beside.value\n")
    (tmp_path / package / "beside.py").write_text("value = 3\n")
    defer(package)

    assert import_module(f"{package}.below").value == 3
    assert executed() == []
    assert import_module(package).value == 3
    assert executed() == [package]


def test_a_module_that_makes_its_attributes_itself_is_asked_for_them(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "__init__.py").write_text(
        "import sys\nsys.executed.append(__name__)\ndef __getattr__(name): return name\n"
    )
    defer(package)

    assert import_module(package).made == "made"


def test_functions_that_are_known_do_not_execute_it_and_are_replaced_by_its_own(package: str) -> None:
    defer(package, {"value": lambda: 3})
    module: Any = import_module(package)

    assert module.value() == 3
    assert executed() == []
    with pytest.raises(AttributeError):
        _ = module.other
    assert module.value == 1


def test_a_module_that_is_imported_or_missing_stays_as_it_is(package: str) -> None:
    module = import_module(package)

    defer(package)
    defer("deferred_sample_that_is_missing")
    defer(f"{package}.missing.below")

    assert import_module(package) is module
    assert executed() == [package]
    assert "deferred_sample_that_is_missing" not in sys.modules
    assert f"{package}.missing.below" not in sys.modules


def test_an_error_while_it_is_executed_comes_again(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "__init__.py").write_text(
        "import sys\nsys.executed.append(__name__)\nvalue = 1 if len(sys.executed) > 2 else 1 // 0\n"
    )
    defer(package)
    module = import_module(package)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            _ = module.value
    assert module.value == 1


def test_a_thread_waits_until_another_has_executed_it(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "__init__.py").write_text(
        "import sys\nsys.executed.append(__name__)\nsys.begun.set()\nsys.may_end.wait(60)\nvalue = 1\n"
    )
    begun, may_end = threading.Event(), threading.Event()
    vars(sys).update(begun=begun, may_end=may_end)
    try:
        defer(package)
        module = import_module(package)
        found: list[int] = []
        ask: Callable[[], None] = lambda: found.append(module.value)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert begun.wait(60)
        assert found == []
        may_end.set()
        for thread in threads:
            thread.join(60)
        assert found == [1, 1, 1]
        assert executed() == [package]
    finally:
        del vars(sys)["begun"], vars(sys)["may_end"]


# A process that is forked while another thread executes a module. Its standard output is the module's value.
FORKED = """
import os, signal, sys, threading
from importlib import import_module
from pathlib import Path
from snapferry.orchestrator.deferred import defer
sys.begun, sys.may_end = threading.Event(), threading.Event()
folder = Path(sys.argv[1])
(folder / "executed_when_forked.py").write_text("import sys\\nsys.begun.set()\\nsys.may_end.wait(60)\\nvalue = 1\\n")
sys.path.insert(0, str(folder))
defer("executed_when_forked")
module = import_module("executed_when_forked")
thread = threading.Thread(target=lambda: module.value)
thread.start()
sys.begun.wait(60)
child = os.fork()
if not child:
    signal.alarm(20)
    sys.may_end = threading.Event()
    sys.may_end.set()
    os.write(1, str(module.value).encode())
    os._exit(0)
_, status = os.waitpid(child, 0)
sys.may_end.set()
thread.join()
sys.exit(status != 0)
"""


def test_a_process_that_is_forked_meanwhile_executes_it_itself(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (0, "1"), ended.stderr
