"""Flower as ``snapferry flower`` runs it: who may look, what it shows, what it keeps."""

from __future__ import annotations

import json
import os
import signal
import stat
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files
from tests.servers import free_port

from .flowers import PASSWORD, flower
from .forge import Forge
from .own_redis import OwnRedis, own_redis
from .processes import PATIENCE_S, Fleet, command_of, until

SECRET = "s3cr3t-of-the-broker"


@pytest.fixture
def guarded_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis with a password."""
    url = f"redis://:{SECRET}@127.0.0.1:{{port}}/0"
    with own_redis(tmp_path / "redis", "--port", "{port}", "--requirepass", SECRET, url=url) as server:
        yield server


OAUTH = {
    "FLOWER_AUTH": ".*@example.org",
    "FLOWER_AUTH_PROVIDER": "flower.views.auth.GitLabLoginHandler",
    "FLOWER_OAUTH2_KEY": "a-key",
    "FLOWER_OAUTH2_SECRET": "a-secret",
    "FLOWER_OAUTH2_REDIRECT_URI": "https://flower.example.org/login",
}


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--address", "0.0.0.0"], {}, "SNAPFERRY_FLOWER_BASIC_AUTH"),
        (["--address", ""], {}, "--address (all addresses) requires a login"),
        (["--address", "::"], {}, "--address :: requires a login"),
        (["--address", "no.such.host.invalid"], {}, "no such address"),
        (["--control"], {}, "--control requires a login"),
        ([], {"SNAPFERRY_FLOWER_BASIC_AUTH": "hunter2"}, "SNAPFERRY_FLOWER_BASIC_AUTH must be user:password"),
        ([], {"FLOWER_BASIC_AUTH": "hunter2:"}, "FLOWER_BASIC_AUTH must be user:password"),
        ([], {"FLOWER_AUTH": ".*@example.org"}, "OAuth for Flower also needs FLOWER_AUTH_PROVIDER, FLOWER_OAUTH2_KEY"),
        ([], OAUTH | {"FLOWER_AUTH": ".*@.*"}, "FLOWER_AUTH must be an email address"),
        ([], OAUTH | {"FLOWER_AUTH_PROVIDER": "no.such"}, "FLOWER_AUTH_PROVIDER: no class no.such"),
        ([], {"FLOWER_INSPECT_TIMEOUT": "soon"}, "FLOWER_…"),
        (["--url-prefix", "a b"], {}, "--url-prefix a b: must be letters"),
        (["--db", "/tmp/flower.db"], {}, "--db: other users can write to /tmp"),
        (["--db", "/proc/nowhere/flower.db"], {}, "--db: cannot use /proc/nowhere/flower.db"),
        (["--broker", f"redis://:{SECRET}@127.0.0.1:1/x"], {}, "the broker URL"),
        (["--max-tasks", "1"], {}, "Invalid value for '--max-tasks'"),
    ],
)  # fmt: skip
def test_what_would_be_unsafe_or_cannot_work_is_one_line(
    forge: Forge, redis_url: str, tmp_path: Path, arguments: list[str], env: dict[str, str], said: str
) -> None:
    options = ["--broker", redis_url, "--db", str(tmp_path / "f" / "db"), *arguments]

    ended = forge.run(["flower", *options], env)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1, ended.err
    assert said in ended.err
    assert "hunter2" not in ended.err
    assert SECRET not in ended.err


def test_a_port_that_is_taken_is_one_line(forge: Forge, redis_url: str, tmp_path: Path) -> None:
    port = redis_url.rpartition(":")[2].partition("/")[0]

    ended = forge.run(
        ["flower", "--broker", redis_url, "--db", str(tmp_path / "f" / "db"), "--port", port], {}
    )

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"cannot listen on 127.0.0.1, port {port}: " in ended.err


def test_a_file_that_somebody_else_may_have_written_is_not_read(
    forge: Forge, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "f").mkdir(mode=0o700)
    (tmp_path / "f" / "db.dat").symlink_to(tmp_path / "elsewhere")

    ended = forge.run(["flower", "--broker", redis_url, "--db", str(tmp_path / "f" / "db")], {})

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"--db: {tmp_path}/f/db.dat is a link, or belongs to another user" in ended.err


def test_files_beside_that_of_flower_are_left_alone(forge: Forge, redis_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir(mode=0o700)
    mine, other = folder / "db.dat", folder / "db-of-mine"
    for file in (mine, other):
        file.touch()
        file.chmod(0o644)
    port = redis_url.rpartition(":")[2].partition("/")[0]

    ended = forge.run(["flower", "--broker", redis_url, "--db", str(folder / "db"), "--port", port], {})

    assert "cannot listen" in ended.err
    assert (stat.S_IMODE(mine.stat().st_mode), stat.S_IMODE(other.stat().st_mode)) == (0o600, 0o644)


def test_no_page_shows_a_secret_and_none_opens_without_the_password(
    guarded_redis: OwnRedis, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    fleet = Fleet(guarded_redis.url, tmp_path, {"AWS_SECRET_ACCESS_KEY": SECRET})
    jobs = Jobs(Settings(broker_url=guarded_redis.url))
    with (
        flower(guarded_redis.url, tmp_path) as pages,
        fleet.orchestrator(),
        fleet.worker(),
    ):
        worker = pages.worker("worker")
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.DONE
        until(lambda: len(pages.tasks(state="SUCCESS")) == 3, "Flower has seen the end of all tasks")
        asked = ["/", "/workers", f"/worker/{worker}", "/tasks", f"/task/{job_id}", "/broker"]
        asked += ["/api/workers?refresh=1", "/api/tasks", f"/api/task/info/{job_id}", "/metrics"]
        for path in asked:
            text = str(pages.get(path))
            assert SECRET not in text, path
            assert PASSWORD.partition(":")[2] not in text, path
            if path != "/metrics":
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    pages.get(path, "")
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    pages.get(path, "operator:wrong")
        for change in (f"/api/task/revoke/{job_id}", f"/api/worker/shutdown/{worker}"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                pages.post(change)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            pages.post("/api/task/async-apply/snapferry.commit_snapshots")
        lines = [json.loads(line) for line in pages.running.logged().splitlines()]
        (broker,) = [line for line in lines if line["message"].startswith("Broker: ")]
        assert (broker["logger"], broker["level"]) == ("flower.command", "info")
        assert PASSWORD not in command_of(pages.running.process.pid)
        assert SECRET not in pages.running.logged()
        assert PASSWORD not in pages.running.logged()


def test_what_is_remembered_outlives_a_restart_and_nobody_else_can_read_it(
    redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    fleet = Fleet(redis_url, tmp_path)
    jobs = Jobs(Settings(broker_url=redis_url))
    with flower(redis_url, tmp_path, "--url-prefix", "/flower") as pages:
        with fleet.orchestrator(), fleet.worker():
            job_id = jobs.submit(
                JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot])
            )
            assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.DONE
            until(lambda: len(pages.tasks(state="SUCCESS")) == 3, "Flower has seen the end of all tasks")
            before = pages.tasks()
        os.kill(pages.running.process.pid, signal.SIGTERM)
        assert pages.running.process.wait(PATIENCE_S) == 0

    files = sorted((tmp_path / "flower").iterdir())
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "flower").stat().st_mode) == 0o700
    with flower(redis_url, tmp_path, "--max-tasks", "100") as pages:
        after = pages.tasks()
    assert Counter(task["uuid"] for task in after) == Counter(task["uuid"] for task in before)
    assert [task["result"] for task in after] == [task["result"] for task in before]


def test_on_this_machine_alone_it_needs_no_password_and_answers_no_program(
    redis_url: str, tmp_path: Path
) -> None:
    with flower(redis_url, tmp_path, "--address", "localhost", password="") as pages:
        assert "Flower" in pages.get("/tasks", "")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            pages.get("/api/tasks", "")


def test_every_queue_of_the_fleet_is_listed_also_without_workers(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    spec = JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot], queue="bulk")
    with flower(redis_url, tmp_path) as pages:
        Jobs(Settings(broker_url=redis_url)).submit(spec)

        listed = {
            queue["name"]: queue["messages"] for queue in pages.get("/api/queues/length")["active_queues"]
        }
        page = pages.get("/broker")

    assert listed == {"snapferry.copy": 0, "snapferry.copy.bulk": 0, "snapferry.plan": 1}
    assert all(queue in page for queue in listed)


def test_oauth_asks_at_its_provider(redis_url: str, tmp_path: Path) -> None:
    with flower(redis_url, tmp_path, env=OAUTH, password="") as pages:

        class Stop(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: object) -> None:
                return None

        opener = urllib.request.build_opener(Stop)
        with pytest.raises(urllib.error.HTTPError) as first:
            opener.open(pages.url + "/tasks", timeout=PATIENCE_S)
        with pytest.raises(urllib.error.HTTPError) as second:
            opener.open(pages.url + "/login", timeout=PATIENCE_S)
        for ended in (first, second):
            ended.value.close()

    assert first.value.headers["Location"].startswith("/login?")
    assert second.value.headers["Location"].startswith("https://gitlab.com/oauth/authorize?")
    assert "a-secret" not in second.value.headers["Location"]


def test_the_variable_of_snapferry_wins_over_flowers_own(redis_url: str, tmp_path: Path) -> None:
    env = {"FLOWER_BASIC_AUTH": "somebody:else", "FLOWER_PORT": str(free_port()), "FLOWER_READ_ONLY": "false"}
    with flower(redis_url, tmp_path, env=env) as pages:
        assert pages.get("/api/tasks") == {}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            pages.get("/api/tasks", "somebody:else")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            pages.post("/api/task/revoke/x")
