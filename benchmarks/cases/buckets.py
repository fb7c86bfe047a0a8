"""Buckets of one S3 server, as the cases fill, empty and compare them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..floor import Plain
from ..rounds import Different
from ..servers import S3Server

SOURCE = "source"


def fill(server: S3Server, store: Path, buckets: Iterable[str]) -> None:
    """
    Start *server* anew, give it *buckets*, all empty, and the bucket `SOURCE` with what is in *store*.

    For a server in memory: what it held is gone.
    """
    empty(server, [SOURCE, *buckets])
    server.rclone("copy", str(store), f":s3:{SOURCE}", "--transfers", "16", "--s3-no-check-bucket")


def empty(server: S3Server, buckets: Iterable[str]) -> None:
    """Start *server* anew, and give it *buckets*, all empty. For a server in memory: what it held is gone."""
    server.restart()
    client = Plain(server.endpoint)
    for bucket in buckets:
        client.make_bucket(bucket)
    client.close()


def same_buckets(server: S3Server, one: str, *others: str) -> None:
    """Raises `Different` unless all of these buckets hold the same keys with the same bytes, downloaded, and any."""
    for other in others:
        _check(server, one, other)


def part_of(server: S3Server, part: str, whole: str) -> None:
    """Raises `Different` unless *whole* holds all keys of *part*, with the same bytes."""
    _check(server, part, whole, "--one-way")


def _check(server: S3Server, one: str, other: str, *flags: str) -> None:
    if not server.rclone("lsf", f":s3:{one}", "--max-depth", "1").strip():
        raise Different(f"nothing in bucket {one}")
    try:
        server.rclone("check", f":s3:{one}", f":s3:{other}", "--download", "--checkers", "16", *flags)
    except subprocess.CalledProcessError as error:
        raise Different(f"buckets {one} and {other}: rclone check ended with {error.returncode}") from error
