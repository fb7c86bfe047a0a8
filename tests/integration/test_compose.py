"""
The compose file, without Docker: each service's own command, started natively with its own environment.

Only what a container would bring is replaced: host names, ports, and the folder of the data.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sample import make_store, random_files, tree
from tests.servers import free_port, redis_program

from .processes import REPOSITORY, snapferry, started, until

PASSWORD = "somebody:a-pass-word"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    return found


class Composed:
    """The services of the file, running."""

    def __init__(self, redis_port: int, flower_port: int) -> None:
        self.broker = f"redis://127.0.0.1:{redis_port}/0"
        self.flower = f"http://127.0.0.1:{flower_port}"

    def get(self, path: str, password: str | None = PASSWORD) -> Any:
        """Return what Flower answers, decoded if it is JSON."""
        request = urllib.request.Request(self.flower + path)
        if password:
            request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
        return json.loads(text) if path.startswith("/api/") else text


@pytest.fixture
def composed(services: dict[str, Any], tmp_path: Path) -> Iterator[Composed]:
    running = Composed(free_port(), free_port())
    data = tmp_path / "data"
    data.mkdir()

    def environment_of(service: str) -> dict[str, str]:
        given = services[service].get("environment", {})
        chosen = {name: str(value) for name, value in given.items() if value is not None}
        assert chosen["SNAPFERRY_BROKER_URL"] == "redis://redis:6379/0"
        chosen["SNAPFERRY_BROKER_URL"] = running.broker
        if "FLOWER_BASIC_AUTH" in chosen:
            assert chosen["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?"), (
                "there is no default password"
            )
            chosen["FLOWER_BASIC_AUTH"] = PASSWORD
        return chosen

    with ExitStack() as stack:
        redis_log = tmp_path / "redis.log"
        port = running.broker.rpartition(":")[2].partition("/")[0]
        redis_command = [redis_program(), *services["redis"]["command"][1:]]
        stack.enter_context(
            started(*redis_command, "--port", port, "--bind", "127.0.0.1", "--dir", str(data), log=redis_log)
        )
        until(lambda: "Ready to accept connections" in redis_log.read_text(), "Redis is up")
        for service in ("orchestrator", "worker"):
            log = tmp_path / f"{service}.log"
            command = native(services[service]["command"])
            stack.enter_context(started(*command, env=environment_of(service), log=log))
            until(lambda log=log: " ready." in log.read_text(), f"{service} is ready")
        (volume,) = services["flower"]["volumes"]
        inside = {
            "5555": running.flower.rpartition(":")[2],
            "0.0.0.0": "127.0.0.1",
            volume.partition(":")[2]: str(tmp_path / "flower"),
        }
        command = list(services["flower"]["command"])
        for what, instead in inside.items():
            assert sum(what in part for part in command) == 1, what
            command = [part.replace(what, instead) for part in command]
        stack.enter_context(
            started(*native(command), env=environment_of("flower"), log=tmp_path / "flower.log")
        )
        until(lambda: answers(running), "Flower is up")
        yield running


def native(command: list[str]) -> list[str]:
    """Return a service's command with its program from this environment, as the image has it on the PATH."""
    program = shutil.which(command[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, f"{command[0]} is not installed"
    return [program, *command[1:]]


def answers(running: Composed) -> bool:
    try:
        return bool(running.get("/healthcheck", None) == "OK")
    except OSError:
        return False


def test_the_services_of_the_file_copy_a_snapshot_and_flower_tells_it_in_words(
    composed: Composed, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1500))
    until(lambda: len(composed.get("/api/workers?refresh=1")) == 2, "Flower sees both workers")

    env = {"SNAPFERRY_BROKER_URL": composed.broker}
    ended = snapferry(
        "sync",
        "--from",
        str(tmp_path / "a"),
        "--to",
        str(tmp_path / "b"),
        "--id",
        snapshot,
        "--json",
        env=env,
    )

    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    job = ended.document["job"]

    def tasks() -> list[dict[str, Any]]:
        found = list(composed.get("/api/tasks").values())
        return found if len(found) == 4 and all(task["state"] == "SUCCESS" for task in found) else []

    found = until(tasks, "Flower has seen the end of all four tasks")
    assert sorted(task["name"] for task in found) == [
        "snapferry.commit_snapshots",
        "snapferry.copy_batch",
        "snapferry.copy_batch",
        "snapferry.plan_job",
    ]
    assert {task["root_id"] for task in found} == {job}, "the job's id ties its tasks together"
    said = {task["args"] for task in found}
    head = f"job {job[:8]} · {snapshot[:6]}…"
    assert said == {
        f"{head} · plan",
        f"{head} · batch 1/2 · 1,000 objects · {512 * 1000 / 1000:.1f} kB",
        f"{head} · batch 2/2 · 501 objects · {said_size(found)}",
        f"{head} · commit",
    }
    results = sorted(str(task["result"]) for task in found)
    assert any("1000 copied, 0 present" in result for result in results), results
    assert any("1 snapshot published; done" in result for result in results), results
    assert any("1 snapshot, 1,501 objects, " in result for result in results), results


def said_size(tasks: list[dict[str, Any]]) -> str:
    """Return the size that the second batch names: it holds the empty object or not, by chance of the hashes."""
    text = next(str(task["args"]) for task in tasks if "batch 2/2" in str(task["args"]))
    size = text.rpartition(" · ")[2]
    assert size in ("256.0 kB", "256.5 kB")
    return size


def test_flower_asks_for_a_password_and_can_change_nothing(composed: Composed) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        composed.get("/api/tasks", None)

    request = urllib.request.Request(
        composed.flower + "/api/task/async-apply/snapferry.commit_snapshots",
        data=b'{"args": ["x", 0]}',
        headers={"Authorization": "Basic " + base64.b64encode(PASSWORD.encode()).decode()},
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=10)


def test_redis_keeps_its_data_and_never_evicts(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]

    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert services["redis"]["volumes"]


def test_flower_is_bound_to_this_machine_only(services: dict[str, Any]) -> None:
    assert services["flower"]["ports"] == ["127.0.0.1:5555:5555"]


def test_every_service_starts_again_after_a_crash_and_has_a_health_check(services: dict[str, Any]) -> None:
    assert set(services) == {"redis", "orchestrator", "worker", "flower", "dashboard"}
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
