"""The examples of docs/examples, as they are there: only the places of stores and servers are the test's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapferry import Client
from snapferry.orchestrator.client import State
from snapferry.stores.address import Address, object_key
from snapferry.stores.hashing import digest
from tests.sample import make_store, random_files, tree
from tests.servers import (
    ACCESS_KEY,
    S3_ENVIRONMENT,
    SECRET_KEY,
    UNSET_FOR_S3,
    S3Server,
    moto_s3_server,
    rclone_s3_server,
)

from .processes import REPOSITORY, Finished, Fleet, finished, started, until

EXAMPLES = REPOSITORY / "docs/examples"
FILES = random_files(20)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that copies an example, with some texts replaced; each must be there."""
    for name in UNSET_FOR_S3:
        monkeypatch.delenv(name, raising=False)

    def copied(name: str, **changes: dict[str, str]) -> Path:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder)
        for file, replaced in changes.items():
            path = next(path for path in folder.iterdir() if path.stem == file)
            text = path.read_text()
            for old, new in replaced.items():
                assert old in text, (path, old)
                text = text.replace(old, new)
            path.write_text(text)
        return folder

    return copied


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with rclone_s3_server(tmp_path_factory.mktemp("buckets")) as server:
        yield server


def script(path: Path, *arguments: str, **env: str) -> Finished:
    """Run a script or a program of an example as a user does, with `snapferry` on the PATH."""
    command = [str(path)] if path.suffix == ".sh" else [sys.executable, str(path)]
    return finished(
        [*command, *arguments], {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env}
    )


def test_nightly_to_a_bucket_on_one_machine(
    example: Callable[..., Path], s3: S3Server, tmp_path: Path
) -> None:
    for path, data in FILES.items():
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / path).write_bytes(data)
    bucket = s3.make_bucket()
    folder = example(
        "nightly",
        snapferry={
            "file:///srv/photos-store": f"file://{tmp_path}/store",
            "s3://my-backup/photos?region=eu-central-1": s3.url(bucket, "photos"),
        },
    )
    env = {
        **S3_ENVIRONMENT,
        "PHOTOS": str(tmp_path / "photos"),
        "SNAPFERRY_STATE_DIR": str(tmp_path / "state"),
    }
    nights = [script(folder / "nightly.sh", **env) for _ in range(2)]

    # Cron mails every line that is printed. In the first night, the scrub tells that it begins.
    assert [(night.code, night.out, night.err.count("\n")) for night in nights] == [(0, "", 1), (0, "", 0)]
    pushed = {path: data for path, data in tree(tmp_path / "store").items() if not path.startswith(".names")}
    keys = {item["Key"] for item in s3.client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {f"photos/{path}" for path in pushed if path.startswith((".objects", ".manifests"))} <= keys


@contextmanager
def fleet(url: str, folder: Path, env: dict[str, str]) -> Iterator[Fleet]:
    found = Fleet(url, folder, env)
    with found.orchestrator(), found.worker():
        yield found


def test_a_store_is_verified_and_healed_from_another(
    example: Callable[..., Path], redis_url: str, tmp_path: Path
) -> None:
    for name in ("live", "backup"):
        make_store(tmp_path / name, FILES)
    folder = example(
        "verify-and-heal",
        snapferry={
            "file:///srv/store": f"file://{tmp_path}/live",
            "s3://my-backup/store?region=eu-central-1": f"file://{tmp_path}/backup",
        },
    )
    env = {"SNAPFERRY_BROKER_URL": redis_url, "SNAPFERRY_CONFIG": str(folder / "snapferry.toml")}
    wrong = tmp_path / "backup" / object_key(Address(digest(FILES["./dir 1/file-00001"])))
    wrong.unlink()
    with fleet(redis_url, tmp_path, env):
        healed = script(folder / "verify_and_heal.py", **env)
        assert healed.code == 0, (healed.out, healed.err)
        assert wrong.read_bytes() == FILES["./dir 1/file-00001"]
        intact = script(folder / "verify_and_heal.py", **env)
        (tmp_path / "live" / wrong.relative_to(tmp_path / "backup")).unlink()
        wrong.unlink()
        hopeless = script(folder / "verify_and_heal.py", **env)

    assert (intact.code, hopeless.code) == (0, 1), (intact, hopeless)
    assert "./dir 1/file-00001" in healed.out
    assert intact.out.count("\n") == 1


@pytest.mark.slow
def test_a_fleet_copies_between_two_clouds_with_two_profiles(
    example: Callable[..., Path], redis_url: str, s3: S3Server, tmp_path: Path
) -> None:
    with moto_s3_server() as other:
        live, backup = s3.make_bucket(), other.make_bucket()
        folder = example(
            "two-clouds",
            snapferry={
                "s3://live/": f"s3://{live}/",
                "s3://backup/": f"s3://{backup}/",
                "https://s3.eu-central-1.amazonaws.com": s3.endpoint,
                "https://s3.us-west-004.backblazeb2.com": other.endpoint,
            },
            # The first server refuses other keys.
            credentials={"AKIALIVE": ACCESS_KEY, "secret-of-live": SECRET_KEY},
            fleet={"redis://queue.example:6379/0": redis_url, "/etc/snapferry": str(tmp_path / "two-clouds")},
        )
        make_store(tmp_path / "a", FILES)
        for path, data in tree(tmp_path / "a").items():
            s3.client.put_object(Bucket=live, Key=f"store/{path}", Body=data)
        env = dict(
            line.split("=", 1)
            for line in (folder / "fleet.env").read_text().splitlines()
            if line and not line.startswith("#")
        )
        with fleet(redis_url, tmp_path, env):
            copied = script(folder / "copy.sh")
        assert copied.code == 0, (copied.out, copied.err)
        keys = [item["Key"] for item in other.client.list_objects_v2(Bucket=backup)["Contents"]]
        assert sorted(keys) == sorted(f"store/{path}" for path in tree(tmp_path / "a"))


@pytest.mark.slow
def test_tasks_of_another_celery_application_submit_a_job_and_follow_it(
    redis_url: str, tmp_path: Path
) -> None:
    make_store(tmp_path / "live", FILES)
    config = tmp_path / "snapferry.toml"
    config.write_text(f'[stores]\nlive = "file://{tmp_path}/live"\nbackup = "file://{tmp_path}/backup"\n')
    other = f"{redis_url.removesuffix('/0')}/1"
    env = {
        "SNAPFERRY_BROKER_URL": redis_url,
        "SNAPFERRY_CONFIG": str(config),
        "SHOP_BROKER_URL": other,
        "SHOP_POLL_S": "0.5",
    }
    log = tmp_path / "shop.log"
    application = str(EXAMPLES / "celery")
    command = [
        sys.executable,
        "-m",
        "celery",
        "--workdir",
        application,
        "-A",
        "shop",
        "worker",
        "-c",
        "1",
        "-l",
        "INFO",
    ]
    with started(*command, env=env, log=log) as shop:
        until(lambda: " ready." in shop.logged(), "the application's worker is ready")
        lost = tmp_path / "live" / object_key(Address(digest(FILES["./dir 1/file-00001"])))
        kept = lost.read_bytes()
        lost.unlink()
        with fleet(redis_url, tmp_path, env), Client(redis_url) as client:
            failed = script(EXAMPLES / "celery/shop.py", "monday", **env)
            lost.write_bytes(kept)
            done = [
                script(EXAMPLES / "celery/shop.py", day, **env) for day in ("monday", "monday", "tuesday")
            ]
            jobs = [job.status() for job in client.jobs()]
    assert failed.code == 1
    assert "JobFailed" in failed.err
    assert [(run.code, run.out) for run in done] == [
        (0, "1 objects copied\n"),
        (0, "1 objects copied\n"),
        (0, "0 objects copied\n"),
    ], (done, shop.logged())
    # The failed job was resumed once; another day is another job.
    assert [job.state for job in jobs] == [State.DONE, State.DONE, State.FAILED]
    assert [job.continues for job in jobs] == ["", jobs[2].job_id, ""]
