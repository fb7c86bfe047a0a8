"""
The manifests of Kubernetes, without a cluster: each container's own command, started natively with its environment.

Only what a cluster would bring is replaced: where volumes are mounted, names of services, addresses and ports. The
Secrets are those that the commands of docs/deploy.md make, the probes are sent as the kubelet sends them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.queues import COPY_QUEUE, Priority
from snapferry.workers.settings.environment import Settings
from tests import manifests
from tests.documented import documented
from tests.keda import measured
from tests.queues import waiting
from tests.sample import make_store, random_files, tree
from tests.servers import free_port, need_redis_cli, program, redis_program

from .processes import PATIENCE_S, Finished, Fleet, Started, finished, marked, snapferry, started, until

Secrets = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    """The Secrets that the documented commands make, by the real kubectl, which here only says what it would send."""
    folder = tmp_path_factory.mktemp("secrets")
    kubectl = program("kubectl")
    assert kubectl
    shown = folder / "shown"
    script = folder / "kubectl"
    script.write_text(
        "#!/bin/sh\n"
        f'case $* in *secret*) {{ "{kubectl}" "$@" --dry-run=client -o yaml; echo ---; }} >>"{shown}";; esac\n'
    )
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": os.devnull}
    subprocess.run(
        ["sh", "-eu"],
        input="\n".join(documented("umask")),
        text=True,
        cwd=folder,
        env=environment,
        check=True,
        timeout=240,
    )
    assert {oct(file.stat().st_mode & 0o777) for file in folder.glob("*.env")} == {"0o600"}
    return {
        secret["metadata"]["name"]: {
            key: base64.b64decode(value).decode() for key, value in secret["data"].items()
        }
        for secret in yaml.safe_load_all(shown.read_text())
        if secret
    }


@dataclass
class Pod:
    """A container that runs natively."""

    name: str
    process: Started
    environment: dict[str, str]
    ports: dict[str, int]

    def probe(self, kind: str) -> Finished | int:
        """Send a probe: return how its command ended, or the status of the answer."""
        found = manifests.container(self.name)[kind]
        if "exec" in found:
            return finished(found["exec"]["command"], self.environment)
        get = found["httpGet"]
        url = f"http://127.0.0.1:{self.ports[get['port']]}{get['path']}"
        try:
            # The kubelet names a pod by its address.
            request = urllib.request.Request(url, headers={"Host": "10.1.2.3"})
            with urllib.request.urlopen(request, timeout=found.get("timeoutSeconds", 1)) as answer:
                return int(answer.status)
        except OSError:
            return 0

    def passes(self, kind: str) -> bool:
        """Say whether a probe succeeds, as the kubelet sees it."""
        found = self.probe(kind)
        return 200 <= found < 400 if isinstance(found, int) else found.code == 0

    def stop(self) -> int:
        """Tell it to end as the kubelet does; return its exit code."""
        os.kill(self.process.process.pid, signal.SIGTERM)
        code = self.process.process.wait(PATIENCE_S)
        until(lambda: not marked(self.process.mark), "its children are gone")
        return code


@dataclass
class Cluster:
    """Stands for a cluster: what it would put in the place of names, ports and volumes."""

    folder: Path
    secrets: Secrets
    redis_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        """Let the program of Redis be found by its name, whichever it is."""
        self.programs = self.folder / "programs"
        self.programs.mkdir()
        (self.programs / "redis-server").symlink_to(redis_program())

    @property
    def broker(self) -> str:
        return self._outside(self.secrets["snapferry-broker"]["url"])

    def _outside(self, text: str) -> str:
        return text.replace("@snapferry-redis:6379/", f"@127.0.0.1:{self.redis_port}/")

    @contextmanager
    def pod(self, name: str) -> Iterator[Pod]:
        """Run the container of the pods called *name*."""
        found = manifests.container(name)
        root = self.folder / name
        mounts = {}
        for mount in found["volumeMounts"]:
            mounted = root / mount["mountPath"].strip("/").replace("/", "-")
            mounted.mkdir(parents=True)
            mounts[mount["mountPath"]] = str(mounted)
        for volume in manifests.pod(name).get("volumes", []):
            if "configMap" in volume:
                (at,) = [m["mountPath"] for m in found["volumeMounts"] if m["name"] == volume["name"]]
                for file, text in manifests.one("ConfigMap", volume["configMap"]["name"])["data"].items():
                    (Path(mounts[at]) / file).write_text(text)
        ports = {port["name"]: free_port() for port in found.get("ports", [])}
        if name == "redis":
            ports = {"redis": self.redis_port}
        numbers = {str(port["containerPort"]): str(ports[port["name"]]) for port in found.get("ports", [])}

        def local(text: str) -> str:
            text = self._outside(text)
            head, separator, tail = text.rpartition("=") if text.startswith("--") else ("", "", text)
            tail = numbers.get(tail, tail)
            for path, place in mounts.items():
                if tail == path or tail.startswith(f"{path}/"):
                    return head + separator + place + tail.removeprefix(path)
            return head + separator + tail

        given = manifests.environment(found, self.secrets)
        # The volume of the example is the folder of the test.
        own = {
            variable: local(value).replace("file:///stores", f"file://{self.folder}")
            for variable, value in given.items()
        }
        # The metrics have no password. The pages have one, and answer to other names only beyond loopback.
        if "SNAPFERRY_METRICS_ADDRESS" in own:
            own["SNAPFERRY_METRICS_ADDRESS"] = "127.0.0.1"
        own |= {
            "HOME": "/nonexistent",
            "HOSTNAME": socket.gethostname(),
            "PATH": f"{Path(sys.executable).parent}:{self.programs}:{os.environ['PATH']}",
        }
        first: str
        words: list[str]
        first, *words = found["command"] + found.get("args", [])
        found_program = shutil.which(first, path=own["PATH"])
        assert found_program, f"{first} is not installed"
        words = [local(word) for word in words]
        if name == "redis":
            words += ["--port", str(self.redis_port), "--bind", "127.0.0.1"]
        with started(found_program, *words, env=own, log=self.folder / f"{name}.log") as process:
            yield Pod(name, process, own, ports)


@pytest.fixture
def cluster(tmp_path: Path, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return Cluster(tmp_path, secrets)


def ready(stack: ExitStack, cluster: Cluster, name: str) -> Pod:
    """Start a container; return it when it is ready, as its own probe says."""
    pod = stack.enter_context(cluster.pod(name))
    ended = pod.process.process.poll
    if name == "redis":
        with redis.Redis.from_url(cluster.broker) as client:
            until(lambda: ended() is not None or pings(client), "Redis answers")
    elif "readinessProbe" in manifests.container(name):
        if "exec" in manifests.container(name)["readinessProbe"]:
            # A probe that is a command takes seconds.
            until(
                lambda: ended() is not None or " ready." in pod.process.logged(),
                f"{name} says that it is ready",
            )
        until(lambda: ended() is not None or pod.passes("readinessProbe"), f"{name} is ready")
    assert ended() is None, pod.process.logged()[-2000:]
    return pod


def pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_the_pods_copy_a_snapshot_pass_their_probes_and_end_when_told(
    cluster: Cluster, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))
    with ExitStack() as stack:
        pods = [ready(stack, cluster, name) for name in ("redis", "orchestrator", "worker")]

        copied = snapferry(
            "sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot,
            env={"SNAPFERRY_BROKER_URL": cluster.broker},
        )  # fmt: skip
        assert copied.code == 0, copied.err
        assert tree(tmp_path / "a") == tree(tmp_path / "b")

        for pod in pods[1:]:
            until(partial(pod.passes, "startupProbe"), "startupProbe")
            until(partial(pod.passes, "livenessProbe"), "livenessProbe")
            assert pod.stop() == 0, pod.process.logged()[-2000:]
            assert not pod.passes("livenessProbe")
        assert pods[0].stop() == 0


@pytest.mark.slow
def test_a_worker_that_redis_does_not_answer_is_alive_and_not_ready(cluster: Cluster) -> None:
    with ExitStack() as stack:
        broker = ready(stack, cluster, "redis")
        worker = ready(stack, cluster, "worker")
        broker.stop()

        until(lambda: worker.passes("livenessProbe"), "livenessProbe")
        assert not worker.passes("readinessProbe")


@pytest.mark.parametrize("name", ["flower", "dashboard"])
def test_the_pages_ask_for_a_password_and_their_probes_for_none(cluster: Cluster, name: str) -> None:
    with ExitStack() as stack:
        ready(stack, cluster, "redis")
        pod = ready(stack, cluster, name)
        until(lambda: pod.passes("livenessProbe"), "livenessProbe")
        url = f"http://127.0.0.1:{pod.ports['http']}/"

        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, timeout=PATIENCE_S)
        known = base64.b64encode(cluster.secrets["snapferry-web"][name].encode()).decode()
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {known}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert answer.status == 200

        assert pod.stop() == 0, pod.process.logged()[-2000:]


def test_the_scheduler_keeps_the_schedule_of_the_mirrors_that_are_mounted(cluster: Cluster) -> None:
    with ExitStack() as stack:
        ready(stack, cluster, "redis")
        pod = stack.enter_context(cluster.pod("scheduler"))
        until(lambda: "beat: Starting" in pod.process.logged(), "the scheduler is up")

        def due() -> list[str]:
            assert pod.process.process.poll() is None, pod.process.logged()[-2000:]
            listed = snapferry("mirrors", "--json", env=pod.environment)
            assert listed.code == 0, listed.err
            return [mirror["mirror"] for mirror in json.loads(listed.out) if mirror["next"]]

        assert until(due, "the mirror is due at some time") == ["nightly"]
        assert pod.stop() == 0, pod.process.logged()[-2000:]


def test_redis_asks_for_its_password_and_is_ready_when_it_answers(cluster: Cluster) -> None:
    need_redis_cli()
    with ExitStack() as stack:
        pod = ready(stack, cluster, "redis")
        stranger = stack.enter_context(redis.Redis.from_url(f"redis://127.0.0.1:{cluster.redis_port}/0"))
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        # The probes ask at the port of the image.
        shell = cluster.programs / "redis-cli"
        shell.write_text(f'#!/bin/sh\nexec {program("redis-cli")} -p {cluster.redis_port} "$@"\n')
        shell.chmod(0o755)
        own = pod.environment
        pod.environment = own | {"PATH": f"{cluster.programs}:{own['PATH']}"}
        until(lambda: pod.passes("readinessProbe"), "readinessProbe")
        until(lambda: pod.passes("livenessProbe"), "livenessProbe")

        # As while it reads its data: it answers, and serves nobody.
        pod.environment |= {"REDISCLI_AUTH": "wrong"}
        assert not pod.passes("readinessProbe")
        until(lambda: pod.passes("livenessProbe"), "livenessProbe")

        assert pod.stop() == 0
        assert not pod.passes("readinessProbe")
        assert not pod.passes("livenessProbe")


def submit(jobs: Jobs, folder: Path, name: str, files: int, *, size: int = 512, **options: Any) -> str:
    snapshot = make_store(folder / name, random_files(files, size=size, seed=len(name)))
    source, destination = (StoreRef(url=f"file://{folder / place}") for place in (name, f"{name}-copy"))
    return jobs.submit(JobSpec.of(source, destination, [snapshot], **options))


@pytest.fixture
def scaled() -> dict[str, Any]:
    """What the ScaledObject of the workers says."""
    return dict(manifests.one("ScaledObject", "snapferry-worker", manifests.with_keda())["spec"])


def test_keda_measures_how_many_batches_wait(scaled: dict[str, Any], redis_url: str, tmp_path: Path) -> None:
    """Batches of all priorities, some of them beyond their job's first ones, and no worker."""
    fleet = Fleet(redis_url, tmp_path)
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=1))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, fleet.orchestrator():
        assert measured(client, scaled) == 0
        submitted = [
            submit(jobs, tmp_path, "urgent", 11, priority=Priority.HIGH),
            submit(jobs, tmp_path, "as it comes", 70, priority=Priority.NORMAL),
            submit(jobs, tmp_path, "unimportant", 3, priority=Priority.LOW),
        ]
        # The empty object of every sample is one more.
        until(lambda: len(waiting(client, COPY_QUEUE)) == 12 + 71 + 4, "the plans are handed out")
        until(lambda: measured(client, scaled) == 12 + 71 + 4, "no orchestrator is at anything")
        used = [trigger for trigger in scaled["triggers"] if client.exists(trigger["metadata"]["listName"])]
        assert len(used) == 6

        with fleet.worker("worker", "-c", "2"):
            ended = [jobs.wait(job, timeout_s=PATIENCE_S) for job in submitted]
        assert {status.state for status in ended} == {State.DONE}
        until(lambda: measured(client, scaled) == 0, "nothing is left to be measured")


def test_keda_measures_what_a_worker_has_taken_also_when_it_died(
    scaled: dict[str, Any], redis_url: str, tmp_path: Path
) -> None:
    """So workers are not ended before the last batches are done, and none is forgotten when there are none."""
    fleet = Fleet(redis_url, tmp_path)
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=1))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, fleet.orchestrator():
        job = submit(jobs, tmp_path, "slow", 1, size=2_000_000)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 2, "the plan is handed out")
        # At this rate no batch but that of the empty object comes to an end here.
        jobs.limit(job, {"rate": 1})
        with fleet.worker("worker", "-c", "2") as worker:
            until(
                lambda: not waiting(client, COPY_QUEUE) and worker.batches_run() == 1,
                "the last one was taken",
            )
            until(lambda: measured(client, scaled) == 1, "no orchestrator is at anything")
            worker.kill_all()
        assert not waiting(client, COPY_QUEUE)

        assert measured(client, scaled) >= 1
