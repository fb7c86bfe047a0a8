"""
The compose file, without Docker: each service's own command, started natively with its own environment.

Only what a container would bring is replaced: host names, ports, and the folders of data and secrets. Grafana
cannot be had here; what it is given is read in tests/unit/test_compose_file.py.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from snapferry.orchestrator.jobs import Jobs
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import State
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.composed import Service
from tests.documented import documented
from tests.sample import make_store, random_files, tree
from tests.servers import ACCESS_KEY, S3_ENVIRONMENT, SECRET_KEY, free_port

from .processes import PATIENCE_S, REPOSITORY, Finished, Started, finished, snapferry, started, until

PASSWORD = "somebody:a-pass-word"

# What whoever calls `docker compose` has set.
GIVEN = {
    "FLOWER_BASIC_AUTH": PASSWORD,
    "SNAPFERRY_DASHBOARD_BASIC_AUTH": PASSWORD,
    "REDIS_PASSWORD": "c0ffee",
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
}

BROKER = "redis://:c0ffee@redis:6379/0"
# As in the image: its programs come first. The settings of whoever runs the tests stay out.
AROUND = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "HOSTNAME": socket.gethostname(),
    **{name: value for name, value in S3_ENVIRONMENT.items() if name not in GIVEN},
}


class Composed:
    """The services of the file, to be started and asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {
            name: free_port()
            for name in ("redis", "orchestrator", "worker", "worker-2", "flower", "dashboard", "s3")
        }
        self.broker = f"redis://:c0ffee@127.0.0.1:{self.ports['redis']}/0"
        self.flower = f"http://127.0.0.1:{self.ports['flower']}"
        self.dashboard = f"http://127.0.0.1:{self.ports['dashboard']}"
        self.s3 = f"http://127.0.0.1:{self.ports['s3']}"
        for name in ("redis-data", "plans", "tmp", "stores", "buckets", "secrets", "logs"):
            (folder / name).mkdir()
        for name, value in (("access_key_id", ACCESS_KEY), ("secret_access_key", SECRET_KEY)):
            (folder / "secrets" / name).write_text(value)

    def log(self, name: str) -> Path:
        """Return the file into which a service writes what it says."""
        return self.folder / "logs" / name

    def path(self, name: str) -> str:
        """Return the path of something in the folder."""
        return str(self.folder / name)

    def environment(self, name: str, **inside: str) -> dict[str, str]:
        """Return a service's environment, and what its image and host would add."""
        found = Service(name, GIVEN).environment(inside)
        return {**AROUND, "TMPDIR": self.path("tmp"), **found}

    @contextmanager
    def run(self, name: str, inside: dict[str, str], env: dict[str, str], *further: str) -> Iterator[Started]:
        """Run the command of a service; *further* arguments are what it needs beside another one on one machine."""
        command = [*Service(name, GIVEN).command(inside), *further]
        with started(*command, env=env, log=self.log(further[1] if further else name)) as running:
            yield running

    def node(self, name: str, port: int) -> dict[str, str]:
        """Return the environment of an orchestrator or a worker."""
        inside = {BROKER: self.broker, "9464": str(port), "0.0.0.0": "127.0.0.1", "http://s3:9000": self.s3}
        if name == "orchestrator":
            inside["/var/tmp"] = self.path("plans")
        return self.environment(name, **inside)

    def execute(self, line: str) -> Finished:
        """Run a line of the documentation that begins with ``docker compose exec orchestrator``."""
        words = shlex.split(line)
        assert words[:5] == ["docker", "compose", "exec", "orchestrator", "snapferry"]
        text = "\0".join(words[5:]).replace("/stores", self.path("stores")).replace("http://s3:9000", self.s3)
        return snapferry(*text.split("\0"), env=self.node("orchestrator", self.ports["orchestrator"]))

    def check(self, name: str, inside: dict[str, str], env: dict[str, str]) -> Finished:
        """Run the health check of a service."""
        return finished(Service(name, GIVEN).check(inside), {**AROUND, **env})


def get(url: str, password: str | None = PASSWORD) -> str:
    """Return what is answered."""
    request = urllib.request.Request(url)
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(password.encode()).decode())
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: str = answer.read().decode()
        return found


def answers(url: str) -> bool:
    try:
        return bool(get(url, None))
    except OSError:
        return False


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    found = Composed(tmp_path_factory.mktemp("composed"))
    ports = {name: str(port) for name, port in found.ports.items()}
    with ExitStack() as stack:
        redis_command = Service("redis", GIVEN).command({"redis-server": servers.redis_program()})
        redis_command += ["--port", ports["redis"], "--bind", "127.0.0.1", "--dir", found.path("redis-data")]
        env = found.environment("redis")
        stack.enter_context(started(*redis_command, env=env, log=found.log("redis")))
        until(lambda: "Ready to accept connections" in found.log("redis").read_text(), "Redis is up")
        for name, service, *further in (
            ("orchestrator", "orchestrator"),
            ("worker", "worker"),
            # As by --scale worker=2; containers have names of their own, processes of one machine do not.
            ("worker-2", "worker", "--hostname", "worker-2"),
        ):
            env = found.node(service, found.ports[name])
            stack.enter_context(found.run(service, {}, env, *further))
        for log in map(found.log, ("orchestrator", "worker", "worker-2")):
            until(lambda: " ready." in log.read_text(), f"{log.name} is ready")  # noqa: B023 - called at once
        inside = {"5555": ports["flower"], "0.0.0.0": "127.0.0.1", "/var/lib/snapferry": found.path("flower")}
        env = found.environment("flower", **{BROKER: found.broker})
        stack.enter_context(found.run("flower", inside, env))
        inside = {"5556": ports["dashboard"], "0.0.0.0": "127.0.0.1", "http://127.0.0.1:5555": found.flower}
        env = found.environment("dashboard", **{BROKER: found.broker})
        stack.enter_context(found.run("dashboard", inside, env))
        inside = {
            "/run/secrets": found.path("secrets"),
            "/data": found.path("buckets"),
            "0.0.0.0:9000": f"127.0.0.1:{ports['s3']}",
        }
        stack.enter_context(found.run("s3", inside, found.environment("s3")))
        until(lambda: answers(found.flower + "/healthcheck"), "Flower is up")
        until(lambda: answers(found.dashboard + "/healthz"), "the dashboard is up")
        until(lambda: "Starting s3 server" in found.log("s3").read_text(), "the S3 server is up")
        yield found


@pytest.fixture(scope="module")
def sample(composed: Composed) -> str:
    """The snapshot of the service `sample`, in the store ``/stores/demo``."""
    inside = {
        "/opt/sample_store.py": str(REPOSITORY / ".ci/sample_store.py"),
        "/tmp/tree": composed.path("tree"),
        "/stores/demo": composed.path("stores/demo"),
    }
    command = Service("sample").command(inside)
    ended = finished(command, composed.environment("sample"))
    assert ended.code == 0, ended.err
    return ended.out.strip()


def test_the_services_of_the_file_copy_a_snapshot_and_flower_tells_it_in_words(
    composed: Composed, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1500))
    until(lambda: len(json.loads(get(composed.flower + "/api/workers?refresh=1"))) == 3, "Flower sees all")

    ended = composed.execute(
        f"docker compose exec orchestrator snapferry sync --from {tmp_path}/a --to {tmp_path}/b --id {snapshot} --json"
    )

    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    job = ended.document["job"]

    def tasks() -> list[dict[str, Any]]:
        all_tasks = json.loads(get(composed.flower + "/api/tasks")).values()
        found = [task for task in all_tasks if task["root_id"] == job]
        return found if len(found) == 4 and all(task["state"] == "SUCCESS" for task in found) else []

    found = until(tasks, "Flower has seen the end of all four tasks, which the job's id ties together")
    assert sorted(task["name"] for task in found) == [
        "snapferry.commit_snapshots",
        "snapferry.copy_batch",
        "snapferry.copy_batch",
        "snapferry.plan_job",
    ]
    said = {task["args"] for task in found}
    head = f"job {job[:8]} · {snapshot[:6]}…"
    first, second = f"{head} · batch 1/2 · 751 objects · ", f"{head} · batch 2/2 · 750 objects · "
    # One of them holds the empty object, by chance of the hashes.
    assert said - {f"{head} · plan", f"{head} · commit"} in (
        {f"{first}384.0 kB", f"{second}384.0 kB"},
        {f"{first}384.5 kB", f"{second}383.5 kB"},
    )
    results = sorted(str(task["result"]) for task in found)
    assert any("751 copied, 0 present" in result for result in results), results
    assert any("1 snapshot published; done" in result for result in results), results
    assert any("1 snapshot, 1,501 objects, " in result for result in results), results
    assert job[:8] in get(composed.dashboard + "/")


def test_flower_asks_for_a_password_and_can_change_nothing(composed: Composed) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(composed.flower + "/api/tasks", None)

    request = urllib.request.Request(
        composed.flower + "/api/task/async-apply/snapferry.commit_snapshots",
        data=b'{"args": ["x", 0]}',
        headers={"Authorization": "Basic " + base64.b64encode(PASSWORD.encode()).decode()},
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=PATIENCE_S)


def test_the_dashboard_asks_for_a_password(composed: Composed) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(composed.dashboard + "/", None)


def test_the_sample_is_copied_to_the_demo_bucket_by_the_documented_command(
    composed: Composed, sample: str
) -> None:
    (line,) = [line for line in documented("exec orchestrator") if "exec orchestrator" in line]

    ended = composed.execute(line)

    assert ended.code == 0, ended.err
    bucket = f"s3://demo?endpoint_url={composed.s3}"
    listed = composed.execute(f"docker compose exec orchestrator snapferry ls {bucket}")
    assert sample in listed.out
    copied, filed = tree(composed.folder / "buckets/demo"), tree(composed.folder / "stores/demo")
    assert copied == filed
    assert len(copied) > 100


@pytest.mark.parametrize(("key", "secret"), [(ACCESS_KEY, "another"), ("another", SECRET_KEY)])
def test_the_demo_server_wants_the_key_that_was_given(composed: Composed, key: str, secret: str) -> None:
    session = boto3.Session(key, secret, region_name="us-east-1")
    client = session.client("s3", endpoint_url=composed.s3)

    with pytest.raises(ClientError) as caught:
        client.list_objects_v2(Bucket="demo")
    client.close()

    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    with pytest.raises(urllib.error.HTTPError, match=r"40[03]"):
        get(f"{composed.s3}/demo", None)


def test_the_demo_server_does_not_start_without_a_key(composed: Composed, tmp_path: Path) -> None:
    (tmp_path / "access_key_id").write_text("a")
    inside = {
        "/run/secrets": str(tmp_path),
        "/data": str(tmp_path),
        "0.0.0.0:9000": f"127.0.0.1:{free_port()}",
    }

    ended = finished(Service("s3").command(inside), composed.environment("s3"))

    assert ended.code != 0
    assert f"{tmp_path}/secret_access_key" in ended.err


def test_the_demo_server_is_of_the_version_that_is_tested_here(composed: Composed) -> None:
    said = finished([servers.program("rclone") or "", "version"]).out.split()[1]

    assert said == "v" + Service("s3").settings["image"].partition(":")[2]


def test_the_scheduler_runs_the_mirrors_of_the_file_and_is_healthy_while_it_does(
    composed: Composed, sample: str, tmp_path: Path
) -> None:
    config = tmp_path / "snapferry.toml"
    source = composed.path("stores/demo")
    config.write_text(f'[[mirror]]\nname = "demo"\nfrom = "{source}"\nto = "{tmp_path}/b"\nevery = "10s"\n')
    env = composed.environment("scheduler", **{BROKER: composed.broker, "/etc/snapferry.toml": str(config)})
    assert composed.check("scheduler", {}, env).code == 1, "nobody keeps the schedule"

    with composed.run("scheduler", {}, env) as scheduler:
        until(lambda: "beat: Starting" in scheduler.logged(), "it is up")
        jobs = Jobs(Settings(broker_url=composed.broker))
        until(lambda: composed.check("scheduler", {}, env).code == 0, "it is healthy")
        until(
            lambda: any(
                job.destination.startswith(f"file://{tmp_path}/b") and job.state is State.DONE
                for job in jobs.list(limit=20)
            ),
            "the mirror was run",
        )

    assert open_store(str(tmp_path / "b")).list_manifest_ids() == [sample]


CHECKED = ("redis", "orchestrator", "worker", "flower", "dashboard", "s3")


@pytest.mark.parametrize("name", CHECKED)
def test_a_health_check_is_content_with_what_runs_and_with_nothing_else(
    composed: Composed, name: str
) -> None:
    if name == "redis":
        servers.need_redis_cli()

    def check(port: str, broker: str, host: str) -> Finished:
        inside, env = {}, {"HOSTNAME": host}
        if name == "redis":
            # The client's own port is the server's.
            inside = {"ping": f"-p {port} ping"}
            env |= composed.environment("redis")
        elif name in ("flower", "dashboard"):
            inside = {":5555" if name == "flower" else ":5556": f":{port}"}
        elif name == "s3":
            inside = {":9000": f":{port}", "/run/secrets": composed.path("secrets")}
            env |= composed.environment("s3")
        else:
            inside = {"--timeout 10": "--timeout 3"}
            env |= composed.node(name, composed.ports[name]) | {
                "SNAPFERRY_BROKER_URL": broker,
                "HOSTNAME": host,
            }
        command = [part for text in Service(name, GIVEN).check(inside) for part in text.split("\0")]
        return finished(command, {**AROUND, **env})

    here = socket.gethostname()
    well = check(str(composed.ports[name]), composed.broker, here)
    assert well.code == 0, well.out + well.err
    assert check(str(free_port()), composed.broker, "nobody").code != 0


@pytest.fixture(scope="module")
def prometheus(composed: Composed) -> Iterator[str]:
    """A real Prometheus with the command and the configuration of its service, which knows the fleet by address."""
    if servers.program("prometheus") is None or servers.program("promtool") is None:
        pytest.skip("there is no Prometheus; on Debian and Ubuntu: .ci/promtool .venv/bin")
    folder = composed.folder / "prometheus"
    shutil.copytree(REPOSITORY / "deploy/prometheus", folder / "etc")
    path = folder / "etc/prometheus.yml"
    configuration = yaml.safe_load(path.read_text())
    # There are no names of services here.
    members = {"worker": ("worker", "worker-2"), "orchestrator": ("orchestrator",)}
    for job in configuration["scrape_configs"]:
        (discovery,) = job.pop("dns_sd_configs")
        (name,) = discovery["names"]
        job["static_configs"] = [
            {"targets": [f"127.0.0.1:{composed.ports[member]}" for member in members.pop(name)]}
        ]
    assert not members
    path.write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    inside = {"/etc/prometheus": str(folder / "etc"), "path=/prometheus": f"path={folder / 'data'}"}
    command = [*Service("prometheus").command(inside), f"--web.listen-address={address}"]
    with started(*command, env=composed.environment("prometheus"), log=composed.log("prometheus")) as running:
        until(
            lambda: answers(f"http://{address}/-/ready") or running.process.poll() is not None,
            "Prometheus is ready",
        )
        assert running.process.poll() is None, running.logged()
        yield address


@pytest.mark.slow
def test_prometheus_finds_every_member_of_the_fleet_up_and_asks_the_alerts(
    composed: Composed, prometheus: str
) -> None:
    def targets() -> list[dict[str, Any]]:
        found = json.loads(get(f"http://{prometheus}/api/v1/targets", None))["data"]["activeTargets"]
        return found if all(target["health"] != "unknown" for target in found) else []

    found = until(targets, "every target was scraped")
    rules = json.loads(get(f"http://{prometheus}/api/v1/rules", None))["data"]["groups"]

    assert {target["health"] for target in found} == {"up"}, found
    assert sorted(target["labels"]["job"] for target in found) == [
        "snapferry-orchestrator",
        "snapferry-worker",
        "snapferry-worker",
    ]
    assert value(prometheus, 'max(snapferry_workers{role="worker"})') == 2
    assert value(prometheus, "count(snapferry_build_info)") == 3
    alerts = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())["groups"]
    assert [len(group["rules"]) for group in rules] == [len(group["rules"]) for group in alerts]


def value(address: str, expression: str) -> float:
    """Return the one value of an expression."""
    query = urllib.parse.urlencode({"query": expression})
    (found,) = json.loads(get(f"http://{address}/api/v1/query?{query}", None))["data"]["result"]
    return float(found["value"][1])


def test_the_health_check_of_prometheus_asks_it(composed: Composed, prometheus: str) -> None:
    well = composed.check("prometheus", {"127.0.0.1:9090": prometheus}, {})
    assert well.code == 0, well.out + well.err
    assert composed.check("prometheus", {"127.0.0.1:9090": f"127.0.0.1:{free_port()}"}, {}).code != 0
