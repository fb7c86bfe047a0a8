"""The Python API: a program submits jobs to a fleet, follows and controls them."""

from __future__ import annotations

import json
import os
import pickle
import re
import uuid
from pathlib import Path
from textwrap import dedent
from typing import Any

import celery
import pytest
import redis
from celery import Celery, signals

from snapferry import Client, JobFailed
from snapferry.orchestrator.client import (
    InvalidSettings,
    InvalidStoreURL,
    JobRefused,
    Limits,
    Prune,
    Settings,
    State,
    StoreError,
    UnknownJob,
    status_line,
)
from snapferry.stores.address import Address, object_key
from snapferry.stores.hashing import digest
from tests.json_documents import check
from tests.sample import make_store, random_files, tree

from .processes import PATIENCE_S, Fleet

FILES = random_files(20)
PAGE = Path(__file__).parents[2] / "docs/python.md"


def test_a_program_pushes_copies_verifies_heals_and_pulls_by_a_few_lines(
    redis_url: str, tmp_path: Path
) -> None:
    for path, data in FILES.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(data)
    config = tmp_path / "snapferry.toml"
    config.write_text(
        f'[stores]\nlive = "file://{tmp_path}/live"\nbackup = "file://{tmp_path}/backup"\n[access]\n'
        f'read = ["file://{tmp_path}", "tree://{tmp_path}/tree"]\n'
        f'write = ["file://{tmp_path}", "tree://{tmp_path}/restored"]\n'
    )
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_CONFIG": str(config)})
    settings = Settings(broker_url=redis_url, config=str(config))
    with fleet.orchestrator(), fleet.worker(), Client(settings=settings) as client:
        pushed = client.push(tmp_path / "tree", "live", tag="first", exclude=["empty"])
        snapshot = pushed.result(timeout_s=PATIENCE_S).first_snapshot
        copied = client.sync("live", f"file://{tmp_path}/backup", "first@", limits=Limits(jobs=4))
        events = list(copied.events())
        lost = tmp_path / "backup" / object_key(Address(digest(FILES["./dir 1/file-00001"])))
        os.remove(lost)
        verified = client.verify("backup")
        with pytest.raises(JobFailed) as found:
            verified.result(timeout_s=PATIENCE_S)
        failures = list(verified.failures())
        healed = client.heal("backup", ["live"], [snapshot[:8]]).result(timeout_s=PATIENCE_S)
        restored = client.pull("backup", snapshot, tmp_path / "restored").result(timeout_s=PATIENCE_S)
        estimated = client.sync("live", "backup", prune=Prune(max_delete=0), dry_run=True)
        estimated.result(timeout_s=PATIENCE_S)
        jobs = client.jobs(limit=3)
        check("job", copied.document())
        check("job", estimated.document())
        check("receipt", copied.receipt())
        assert [row.id for row in copied.snapshots()] == [snapshot]
        assert client.job(copied.id[:13]).id == copied.id
        assert (copied.status().limits.jobs, copied.cancel().state) == (4, State.DONE)
        with pytest.raises(JobRefused):
            copied.retry()
        assert copied.resume() is None
        again = verified.retry()
        assert again.result(timeout_s=PATIENCE_S).continues == verified.id

    assert events[-1].state is State.DONE
    assert [event.copied for event in events] == sorted(event.copied for event in events)
    assert len({repr(event) for event in events}) == len(events)
    assert found.value.status.state is State.FAILED
    assert found.value.job is verified
    assert [[path for _, path in failure.places] for failure in failures] == [["./dir 1/file-00001"]]
    assert (healed.state, healed.copied) == (State.DONE, 1)
    assert restored.state is State.DONE
    assert estimated.estimate()["objects"]["to_copy"] == 0
    assert jobs[0].id == estimated.id
    assert tree(tmp_path / "restored") == {
        path[2:]: data for path, data in FILES.items() if path != "./empty"
    }


def test_the_examples_of_the_page_run(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "live", FILES)
    config = tmp_path / "snapferry.toml"
    config.write_text(f'[stores]\nlive = "file://{tmp_path}/live"\nbackup = "file://{tmp_path}/backup"\n')
    monkeypatch.setenv("SNAPFERRY_CONFIG", str(config))
    monkeypatch.setenv("SNAPFERRY_BROKER_URL", redis_url)
    allowed = {"SNAPFERRY_ACCESS_DELETE": f"file://{tmp_path}/backup"}
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", PAGE.read_text(), re.MULTILINE)
    examples = [dedent(block) for block in blocks if "import" in block]
    with Fleet(redis_url, tmp_path, allowed).orchestrator(), Fleet(redis_url, tmp_path).worker():
        first, *others = examples
        exec(
            first.replace("redis://broker/0", redis_url)
            .replace("file:///srv/store", str(tmp_path / "live"))
            .replace("s3://backup/store", str(tmp_path / "backup")),
            {},
        )
        assert capsys.readouterr().out == f"{len(FILES)} objects copied\n"
        for example in others:
            names: dict[str, Any] = {}
            exec(example, names)
            if "copy_nightly" in names:
                assert [names["copy_nightly"]("monday"), names["copy_nightly"]("monday")] == [0, 0]
            elif "job" in names:
                names["job"].wait(timeout_s=PATIENCE_S)
        ended = Client(redis_url).jobs()

    assert len(examples) == 5
    # Each example is a job, and two calls for the same run are one.
    assert [job.status().state for job in ended] == [State.DONE] * 5


def test_a_job_is_paused_continued_and_cancelled(redis_url: str, tmp_path: Path) -> None:
    make_store(tmp_path / "a", FILES)
    with Client(redis_url) as client:
        job = client.sync(tmp_path / "a", tmp_path / "b")
        assert job.status().state is State.QUEUED
        assert job.pause().paused
        assert not job.unpause().paused
        assert job.limit(rate=1000).limits == Limits(rate=1000)
        with pytest.raises(TimeoutError):
            job.result(timeout_s=0.1)
        job.cancel()
        fleet = Fleet(redis_url, tmp_path)
        with fleet.orchestrator(), pytest.raises(JobFailed) as ended:
            job.result(timeout_s=PATIENCE_S)
        assert ended.value.status.state is State.CANCELLED
        received = pickle.loads(pickle.dumps(ended.value))
        assert (type(received), str(received), received.status) == (
            JobFailed,
            str(ended.value),
            ended.value.status,
        )
        client.close()


def test_a_task_that_runs_again_takes_its_job_up(redis_url: str, tmp_path: Path) -> None:
    make_store(tmp_path / "a", FILES)
    job_id = str(uuid.uuid4())
    with Client(redis_url) as client:
        assert client.take_up(job_id) is None
        job = client.sync(tmp_path / "a", tmp_path / "b", job_id=job_id)
        assert [found.id for found in (client.take_up(job_id), client.job(job_id)) if found] == [job_id] * 2
        job.cancel()
        fleet = Fleet(redis_url, tmp_path)
        with fleet.orchestrator():
            again = client.take_up(job_id)
            assert again is not None
            assert again.id != job_id
            assert again.status().continues == job_id
            third = client.take_up(job_id)
            assert third is not None
            assert third.id == again.id
            with fleet.worker():
                assert again.result(timeout_s=PATIENCE_S).copied == len(FILES)
        ended = client.take_up(job_id)
        assert ended is not None
        assert ended.id == again.id
        assert status_line(ended.status()).startswith("done: ")
        assert status_line(job.status()) == "cancelled"
        assert len(client.jobs()) == 2
        failed = client.sync(tmp_path / "none", tmp_path / "c", dry_run=True)
        with fleet.orchestrator():
            failed.wait(timeout_s=PATIENCE_S)
        same = client.take_up(failed.id)
        assert same is not None
        assert same.id == failed.id


def test_clients_leave_another_celery_application_of_the_process_alone(
    redis_url: str, tmp_path: Path
) -> None:
    make_store(tmp_path / "a", FILES)
    host = Celery("host", broker=f"{redis_url.removesuffix('/0')}/1", set_as_current=False)
    host.conf.task_default_queue = "host"
    before = receivers()
    for _ in range(3):
        with Client(redis_url) as client:
            client.sync(tmp_path / "a", tmp_path / "b")
            host.send_task("host.add", (1, 2))
            # Kombu keeps connections: another one is new.
            with host.connection_for_write() as connection:
                assert type(connection.default_channel).__module__ == "kombu.transport.redis"
    added = {name: count - before[name] for name, count in receivers().items() if count != before[name]}
    with redis.Redis.from_url(f"{redis_url.removesuffix('/0')}/1") as own:
        messages = [json.loads(text) for text in own.lrange("host", 0, -1)]

    assert set(added) <= {"before_task_publish"}
    assert added.get("before_task_publish", 0) <= 1
    assert len(messages) == 3
    assert not any(name.startswith("snapferry") for message in messages for name in message["headers"])
    assert celery.current_app.main != "snapferry"


def receivers() -> dict[str, int]:
    return {
        name: len(found.receivers or ())
        for name, found in vars(signals).items()
        if hasattr(found, "receivers")
    }


def test_bad_input_raises_and_queues_nothing(redis_url: str, tmp_path: Path) -> None:
    make_store(tmp_path / "a", FILES)
    a, b = tmp_path / "a", tmp_path / "b"
    with Client(redis_url) as client:
        for wrong in (
            lambda: client.sync("nowhere", b),
            lambda: client.sync(a, a),
            lambda: client.sync("ftp://host/x", b),
            lambda: client.pull(a, "latest", a / "below"),
            lambda: client.push("", b),
            lambda: client.push(a, f"tree://{b}"),
            lambda: client.push(a, a),
            lambda: client.heal(b, [a, f"file://{a}"]),
        ):
            with pytest.raises(InvalidStoreURL):
                wrong()
        for lost in (lambda: client.sync(a, b, "none@"), lambda: client.sync(a, b, ["abcd"])):
            with pytest.raises(StoreError):
                lost()
        for bad in (
            lambda: client.sync(a, b, patience=-1),
            lambda: client.sync(a, b, checksum=True, trust_manifest=True),
            lambda: client.sync(a, b, unknown=1),  # type: ignore[call-arg]
            lambda: client.heal(a, []),
            lambda: client.verify(a, max_bytes=-1),
            lambda: client.pull(a, None, b),  # type: ignore[arg-type]
            lambda: client.pull(a, ["latest", "latest"], b),  # type: ignore[arg-type]
            lambda: client.sync(a, b, job_id="nightly"),
            lambda: client.sync(a, b, job_id=str(uuid.uuid4()).upper()),
            lambda: client.jobs(state="running"),
            lambda: client.jobs(limit=0),
        ):
            with pytest.raises(ValueError):  # noqa: PT011 - each has another message
                bad()
        with pytest.raises(UnknownJob, match="no job abcd") as unknown:
            client.job("abcd")
        assert str(pickle.loads(pickle.dumps(unknown.value))) == str(unknown.value)
        with pytest.raises(JobRefused):
            client.job("")
        assert client.jobs() == []


def test_a_job_takes_only_limits_that_exist(redis_url: str, tmp_path: Path) -> None:
    make_store(tmp_path / "a", FILES)
    with Client(redis_url) as client:
        job = client.sync(tmp_path / "a", tmp_path / "b")
        for wrong in ({"speed": 5}, {"rate": 0}, {"jobs": -1}, {"jobs": 10_000_000_000_000_000_000}):
            with pytest.raises(ValueError):  # noqa: PT011 - each has another message
                job.limit(**wrong)
        assert job.limit(rate=5, jobs=None).limits == Limits(rate=5)
        job.cancel()


def test_a_path_means_what_the_kernel_makes_of_it(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/inner")
    with Client(redis_url) as client:
        pushed = client.push(f"{tmp_path}/link/..", tmp_path / "b")
        assert pushed.status().source.partition("?")[0] == f"tree://{tmp_path}/link/.."


def test_a_client_without_a_broker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SNAPFERRY_BROKER_URL", raising=False)
    with pytest.raises(InvalidSettings, match="SNAPFERRY_BROKER_URL"):
        Client()
