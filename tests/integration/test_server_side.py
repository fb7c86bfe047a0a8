"""``--server-side``, with real worker processes and a real server."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.stream_store import StreamStore
from tests.counting import Traffic, counting_proxy
from tests.opening import open_store
from tests.sample import assert_published_means_complete, fill, random_files
from tests.servers import S3Server

from .processes import Finished, snapferry

FILES = random_files(40) | {"./large": bytes(9 * 1024 * 1024)}


def sync(tmp_path: Path, source: str, destination: str, *options: str, **more: Any) -> Finished:
    return snapferry(
        "sync", source, destination, "--all", "--server-side", "--receipt", str(tmp_path / "receipt"), *options,
        **more,
    )  # fmt: skip


@pytest.fixture
def source(rclone_memory_s3: S3Server, s3_environment: None) -> tuple[str, StreamStore]:
    bucket = rclone_memory_s3.make_bucket()
    store = open_store(rclone_memory_s3.url(bucket, "a"))
    fill(store, FILES)
    return bucket, store


def test_the_server_copies_the_objects_of_a_job_and_no_worker_sends_them(
    rclone_memory_s3: S3Server, source: tuple[str, StreamStore], tmp_path: Path
) -> None:
    bucket, _ = source
    traffic = Traffic()
    with counting_proxy(rclone_memory_s3, traffic) as (proxy, received):
        ended = sync(tmp_path, proxy.url(bucket, "a"), proxy.url(bucket, "b"), env=proxy.environment)
        again = sync(
            tmp_path, proxy.url(bucket, "a"), proxy.url(bucket, "c"), "--checksum", env=proxy.environment
        )

    told = json.loads((tmp_path / "receipt").read_text())
    assert (ended.code, again.code) == (0, 0), ended.err + again.err
    assert "42 by the server" in ended.out
    assert told["confirmed"] == {"server": 42}
    assert told["objects"]["copied"] == 42
    # Probes, and the answers to copies.
    assert traffic.moved(0.0, math.inf, "PutObject", ".objects/") < len(FILES["./large"]) / 10
    assert received["UploadPart"] == 0
    for name in ("b", "c"):
        copied = open_store(rclone_memory_s3.url(bucket, name))
        assert len(copied.list_manifest_ids()) == 1
        assert_published_means_complete(copied)


def test_a_plan_counts_copies_by_the_server(
    rclone_memory_s3: S3Server, source: tuple[str, StreamStore]
) -> None:
    bucket, _ = source
    stores = [rclone_memory_s3.url(bucket, name) for name in ("a", "b")]
    ended = snapferry("plan", *stores, "--all", "--server-side", "--json", env=rclone_memory_s3.environment)

    assert ended.code == 0, ended.err
    planned = json.loads(ended.out)["estimate"]
    requests = planned["requests"]["destination"]
    # One PutObject: the manifest.
    assert (requests["CopyObject"], requests["PutObject"], planned["exact"]) == (42, 1, False)
    assert "UploadPart" not in requests


def test_a_mirror_may_ask_for_it(
    rclone_memory_s3: S3Server, source: tuple[str, StreamStore], tmp_path: Path
) -> None:
    bucket, _ = source
    to = rclone_memory_s3.url(bucket, "b")
    config = tmp_path / "snapferry.toml"

    def write(to: str) -> None:
        table = {"name": "m", "from": rclone_memory_s3.url(bucket, "a"), "to": to, "every": "1d"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        config.write_text("\n".join(["[[mirror]]", *lines, "server-side = true", ""]))

    command = ["run", "m", "--config", str(config), "--state-dir", str(tmp_path / "state")]
    environment = rclone_memory_s3.environment
    write(to)
    ended = snapferry(*command, env=environment)
    assert ended.code == 0, ended.err
    assert_published_means_complete(open_store(to))

    write(str(tmp_path / "b"))
    refused = snapferry(*command, env=environment)
    assert refused.code == 2
    assert "only servers of S3 stores copy by themselves" in refused.err
