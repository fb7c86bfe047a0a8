"""A real Airflow: its scheduler, triggerer, API server and DAG processor, from an environment of its own."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port

from .processes import REPOSITORY, Started, started, until

ENVIRONMENT = REPOSITORY / ".venv-airflow"
"""What ``make test-examples`` makes."""

ENDED = ("success", "failed", "upstream_failed", "skipped")


@dataclass
class Airflow:
    """A running Airflow."""

    url: str
    process: Started
    program: Path

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call its API; return the answer's document, None if the answer is that there is none."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=240) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(f"{path}: {error.code} {error.read()[:2000]!r}") from error

    def start(self, dag: str, **conf: Any) -> Run:
        """Start a run of *dag*, once the DAG processor has read it."""
        until(lambda: self.call("GET", f"dags/{dag}"), f"{dag} is read")
        self.call("PATCH", f"dags/{dag}", {"is_paused": False})
        found = self.call("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return Run(self, dag, found["dag_run_id"])


@dataclass
class Run:
    """A run of a DAG."""

    airflow: Airflow
    dag: str
    id: str

    @property
    def path(self) -> str:
        return f"dags/{self.dag}/dagRuns/{self.id}"

    def task(self, name: str) -> dict[str, Any]:
        """Return a task instance."""
        found: dict[str, Any] = self.airflow.call("GET", f"{self.path}/taskInstances/{name}")
        return found

    def until(self, name: str, *states: str) -> dict[str, Any]:
        """Wait until a task is in one of *states*; return it. It must not end in another one."""

        def reached() -> dict[str, Any] | None:
            found = self.task(name)
            assert found["state"] not in ENDED or found["state"] in states, self.log(name)
            return found if found["state"] in states else None

        reached_one: dict[str, Any] = until(reached, f"{name} is {' or '.join(states)}")
        return reached_one

    def xcom(self, name: str, key: str = "return_value") -> Any:
        """Return an XCom of a task, None if it is not there."""
        found = self.airflow.call(
            "GET", f"{self.path}/taskInstances/{name}/xcomEntries/{key}?deserialize=true"
        )
        return found and found["value"]

    def log(self, name: str) -> str:
        """Return the log of all attempts of a task."""
        tries = range(1, max(1, self.task(name)["try_number"]) + 1)
        logs = [
            self.airflow.call("GET", f"{self.path}/taskInstances/{name}/logs/{number}?full_content=true")
            for number in tries
        ]
        return "\n".join(json.dumps(log) for log in logs)

    def mark(self, name: str, state: str) -> None:
        """Mark a task as a person does on the page."""
        self.airflow.call("PATCH", f"{self.path}/taskInstances/{name}", {"new_state": state})

    def clear(self, name: str) -> None:
        """Clear a task, so that it runs again."""
        self.airflow.call(
            "POST",
            f"dags/{self.dag}/clearTaskInstances",
            {
                "dry_run": False,
                "dag_run_id": self.id,
                "task_ids": [name],
                "only_failed": False,
                "reset_dag_runs": True,
            },
        )


@contextmanager
def airflow(folder: Path, dags: Path, env: Mapping[str, str]) -> Iterator[Airflow]:
    """Run Airflow in *folder* with the DAGs in *dags*; *env* is the environment of its tasks and triggers."""
    program = Path(os.environ.get("SNAPFERRY_TEST_AIRFLOW", ENVIRONMENT / "bin/airflow"))
    if not program.exists():
        pytest.skip("there is no Airflow; run: make test-examples")
    port = free_port()
    own = {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        # Ports of chance, as for all servers of tests.
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        **env,
    }
    url = f"http://127.0.0.1:{port}"
    with started(str(program), "standalone", env=own, log=folder / "airflow.log") as process:
        found = Airflow(url, process, program)

        def healthy() -> bool:
            assert process.process.poll() is None, process.logged()[-3000:]
            try:
                states = found.call("GET", "monitor/health")
            except OSError:
                return False
            return all(
                states[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor")
            )

        until(healthy, "Airflow is healthy", timeout_s=600)
        yield found
