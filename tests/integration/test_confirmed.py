"""A job counts nothing as copied that arrived altered at a bucket, with real worker processes, and accounts for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapferry.stores.hashing import digest
from tests.counting import counting_proxy
from tests.sample import make_store, random_files
from tests.servers import S3Server

from .processes import snapferry


@pytest.mark.parametrize("stays", [False, True])
def test_bits_that_flip_on_the_way_to_a_bucket_are_never_published(
    rclone_memory_s3: S3Server, tmp_path: Path, stays: bool
) -> None:
    """rclone checks no digest."""
    snapshot = make_store(tmp_path / "a", random_files(40))
    bucket = rclone_memory_s3.make_bucket()
    flipped: set[str] = set()
    wrong = min(
        path.name
        for path in (tmp_path / "a" / ".objects").rglob("*")
        if path.stat().st_size and path.is_file()
    )

    def alter(operation: str, path: str, body: bytes) -> bytes:
        again = path in flipped and not (stays and path.endswith(wrong))
        if operation != "PutObject" or ".objects/" not in path or again or not body:
            return body
        flipped.add(path)
        return body[:-1] + bytes([body[-1] ^ 4])

    receipt = tmp_path / "receipt.json"
    with counting_proxy(rclone_memory_s3, alter=alter) as (proxy, _):
        ended = snapferry(
            "sync", "--from", str(tmp_path / "a"), "--to", proxy.url(bucket), "--id", snapshot,
            "--receipt", str(receipt), env=proxy.environment,
        )  # fmt: skip

    found = rclone_memory_s3.client.list_objects_v2(Bucket=bucket)["Contents"]
    held = {
        entry["Key"]: rclone_memory_s3.client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in found
    }
    for key, data in held.items():
        assert digest(data) == key.partition("/")[2].replace("/", "")
    told = json.loads(receipt.read_text())
    assert told["confirmed"] == {"etag": told["objects"]["copied"]}
    assert told["objects"]["failed"] == int(stays)
    assert any(key.startswith(".manifests/") for key in held) is not stays
    assert ended.code == int(stays)
    assert flipped
