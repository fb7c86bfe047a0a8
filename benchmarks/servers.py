"""
Servers on this machine: S3 (`rclone serve s3`) and Redis. Their memory and time are no part of any measurement.

The commands of the peers that speak to the S3 server are made here as well,
because they are told of it by flags.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .commands import environment
from .measure import Command, cpu_of

KEY: Final = "benchmarkkey"
SECRET: Final = "benchmarksecret"
START_TIMEOUT_S: Final = 20.0

# Where `benchmarks.big_server` keeps what is written to it.
PARTS_FOLDER: Final = ".parts"

# A line of rclone's log says what a request asks for before it says anything in lower case.
_logged_request = re.compile(r" serve s3: ([A-Z]{3,}(?: [A-Z]{3,})*)").search

_OPERATIONS: Final = {
    "HEAD OBJECT": "HeadObject",
    "GET OBJECT": "GetObject",
    "CREATE OBJECT": "PutObject",
    "LIST BUCKET": "ListObjectsV2",
    "HEAD BUCKET": "HeadBucket",
}


class S3Server:
    """
    A server of *place*: a directory, each folder of it a bucket, or ``:memory:``. For a ``with`` block.

    `restart` makes it forget what it remembers of a directory, and of
    ``:memory:`` everything; the endpoint stays the same. With *count* it logs
    every request, which takes some of its time.
    """

    def __init__(self, place: str, log: Path, *, count: bool = False) -> None:
        self._place = place
        self._log = log
        self._count = count
        self._counted_to = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._address = f"127.0.0.1:{free_port()}"

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://{self._address}"

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that it has taken since its last start."""
        return cpu_of([self._process.pid] if self._process else [])

    @property
    def environment(self) -> dict[str, str]:
        """What ours and snapdir need to find the server."""
        return self.environment_at(self.endpoint)

    def environment_at(self, endpoint: str) -> dict[str, str]:
        """Return what ours and snapdir need to find the server behind a proxy at *endpoint*."""
        return {
            "SNAPDIR_S3_STORE_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def restart(self) -> None:
        """Start the server, anew if it runs. Returns when it accepts connections."""
        self._stop()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment({"RCLONE_CONFIG": ""}),
                process_group=0,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._accepts():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the S3 server does not start: {self._log.read_text()[-500:]}")
            time.sleep(0.02)

    def _arguments(self) -> list[str]:
        arguments = ["serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", self._address]
        arguments += ["-vv"] if self._count else []
        return [rclone(), *arguments, "--vfs-cache-mode", "off", self._place]

    def requests(self) -> Counter[str]:
        """Return what it was asked for since the last call, by operation. Needs *count*."""
        with self._log.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._counted_to)
            found = count_requests(iter(log.readline, ""))
            self._counted_to = log.tell()
        return found

    def rclone(self, *arguments: str) -> str:
        """
        Run an rclone command on this server, and return what it printed; ``:s3:BUCKET/PREFIX`` is a place in it.

        Raises CalledProcessError.
        """
        command = self.rclone_command(*arguments)
        return subprocess.run(
            [*command.arguments, "-q"],
            env=dict(command.environment),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=3600,
            process_group=0,
        ).stdout

    def rclone_command(self, *arguments: str, endpoint: str | None = None) -> Command:
        """Return an rclone command on this server, with rclone's defaults; *endpoint* where it is behind a proxy."""
        flags = ["--s3-provider", "Other", "--s3-endpoint", endpoint or self.endpoint]
        flags += ["--s3-access-key-id", KEY, "--s3-secret-access-key", SECRET, "--s3-force-path-style"]
        return Command([rclone(), *arguments, *flags], environment({"RCLONE_CONFIG": ""}))

    def s5cmd_upload(self, folder: Path, bucket: str) -> Command:
        """Return the s5cmd command that copies what is in *folder* to *bucket*."""
        return Command([*self._s5cmd(), "cp", f"{folder}/", f"s3://{bucket}/"], self._s5cmd_environment)

    def s5cmd_through(self, source: str, folder: Path, destination: str) -> Command:
        """
        Return the s5cmd commands that copy a bucket to another by way of *folder*.

        Between two buckets s5cmd knows one way alone: it asks the server to copy, which moves no byte to it.
        """
        once = " ".join([shlex.join(self._s5cmd()), "cp"])
        script = (
            f"{once} {shlex.quote(f's3://{source}/*')} {shlex.quote(f'{folder}/')}"
            f" && {once} {shlex.quote(f'{folder}/')} {shlex.quote(f's3://{destination}/')}"
        )
        return Command(["sh", "-c", script], self._s5cmd_environment)

    def _s5cmd(self) -> list[str]:
        return [program("s5cmd"), "--log", "error", "--endpoint-url", self.endpoint]

    @property
    def _s5cmd_environment(self) -> dict[str, str]:
        return environment(
            {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        )

    def _accepts(self) -> bool:
        return accepts(int(self._address.partition(":")[2]))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def count_requests(log: Iterable[str]) -> Counter[str]:
    """Return how many requests of each kind rclone has written to its *log*."""
    found: Counter[str] = Counter()
    for line in log:
        if request := _logged_request(line):
            found[_OPERATIONS.get(request[1], request[1])] += 1
    return found


class BigServer(S3Server):
    """
    A server for objects larger than memory and disk (`benchmarks.big_server`), of the buckets in *place*.

    `restart` makes it forget what was written since the first start. *rate*: the most bytes per second of each
    connection.
    """

    def __init__(self, place: Path, log: Path, *, rate: float | None = None) -> None:
        super().__init__(str(place), log)
        self._rate = rate

    def restart(self) -> None:
        self._stop()
        shutil.rmtree(Path(self._place, PARTS_FOLDER), ignore_errors=True)
        super().restart()

    def _arguments(self) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "benchmarks.big_server",
            self._place,
            self._address.partition(":")[2],
        ]
        return command if self._rate is None else [*command, str(self._rate)]


class RedisServer:
    """A Redis of the benchmark's own, in memory, on a port of this machine. For a ``with`` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, as a broker."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def process(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        from snapferry.orchestrator.embedded import find_server

        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._folder), "--save", ""]
        options += ["--appendonly", "no", "--maxmemory-policy", "noeviction"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_server(), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not accepts(self._port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._stop()
                raise RuntimeError("Redis does not start")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    """Say whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rclone() -> str:
    """Return the path of rclone."""
    return program("rclone")


def program(name: str) -> str:
    """Return the path of a program: the one beside this Python, else the one on PATH. Raises RuntimeError."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; `make bench` installs it")
    return found
