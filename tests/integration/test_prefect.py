"""The example with a real Prefect and a real fleet: `make test-examples` installs Prefect and runs this."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry import Client
from snapferry.orchestrator.client import State
from snapferry.stores.address import Address, object_key
from snapferry.stores.hashing import digest
from tests.sample import make_store, random_files, tree
from tests.servers import free_port

from .processes import PATIENCE_S, REPOSITORY, Fleet, finished, started, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FILES = random_files(20)
EXAMPLE = REPOSITORY / "docs/examples/prefect/nightly_copy.py"


@pytest.fixture
def python() -> str:
    found = Path(os.environ.get("SNAPFERRY_TEST_PREFECT", REPOSITORY / ".venv-prefect/bin/python"))
    if not found.exists():
        pytest.skip("there is no Prefect; run: make test-examples")
    return str(found)


@pytest.fixture
def env(redis_url: str, tmp_path: Path, python: str) -> dict[str, str]:
    make_store(tmp_path / "live", FILES)
    config = tmp_path / "snapferry.toml"
    config.write_text(f'[stores]\nlive = "file://{tmp_path}/live"\nbackup = "file://{tmp_path}/backup"\n')
    return {
        "SNAPFERRY_BROKER_URL": redis_url,
        "SNAPFERRY_CONFIG": str(config),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        # A busy machine needs longer than its 20 s.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "PYTHONPATH": "",
    }


def test_a_flow_copies_and_verifies_and_a_retry_resumes_its_job(
    env: dict[str, str], python: str, redis_url: str, tmp_path: Path
) -> None:
    # Ten minutes between two attempts are for real life.
    program = tmp_path / "nightly_copy.py"
    program.write_text(EXAMPLE.read_text().replace("minutes=10", "seconds=1"))
    lost = tmp_path / "live" / object_key(Address(digest(FILES["./dir 1/file-00001"])))
    kept = lost.read_bytes()
    lost.unlink()
    fleet = Fleet(redis_url, tmp_path)
    log = tmp_path / "flow.log"
    with fleet.orchestrator(), fleet.worker(), Client(redis_url) as client:
        with started(python, str(program), env=env, log=log) as flow:
            until(
                lambda: [job for job in client.jobs() if job.status().state is State.FAILED], "a failed job"
            )
            lost.write_bytes(kept)
            assert flow.process.wait(PATIENCE_S) == 0, flow.logged()
            said = flow.logged()
        jobs = [job.status() for job in client.jobs()]

    assert f"{len(FILES)} intact" in said
    assert "done: " in said
    verified, *copies = jobs
    assert verified.action == "verify"
    # Each attempt before the repair resumed the one before.
    assert [job.continues for job in copies] == [*(job.job_id for job in copies[1:]), ""]
    assert tree(tmp_path / "live") == tree(tmp_path / "backup")


def test_a_flow_run_that_is_cancelled_cancels_its_job(
    env: dict[str, str], python: str, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    env = {**env, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    prefect = str(Path(python).with_name("prefect"))
    serve = (
        f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r})\n"
        "import nightly_copy as n; n.nightly_copy.serve(name='night')"
    )
    answers: Callable[[], bool] = lambda: finished([prefect, "deployment", "ls"], env).code == 0  # noqa: E731
    with (
        started(prefect, "server", "start", "--port", str(port), env=env, log=tmp_path / "server.log"),
        Client(redis_url) as client,
    ):
        until(answers, "Prefect's server answers")
        with started(python, "-c", serve, env=env, log=tmp_path / "serve.log") as served:
            until(lambda: "night" in finished([prefect, "deployment", "ls"], env).out, "the flow is served")
            run = finished([prefect, "deployment", "run", "nightly-copy/night", "--watch-timeout", "1"], env)
            until(client.jobs, "the job is submitted")
            (job,) = client.jobs()
            ids = [line for line in run.out.splitlines() if "UUID" in line]
            assert ids, (run.out, run.err, served.logged())
            cancelled = finished([prefect, "flow-run", "cancel", ids[0].split()[-1]], env)
            assert cancelled.code == 0, cancelled.err
            until(lambda: job.status().cancelling, "the job is cancelled")
    with Fleet(redis_url, tmp_path).orchestrator():
        assert job.wait(timeout_s=PATIENCE_S).state is State.CANCELLED
