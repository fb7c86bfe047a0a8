"""A bucket over HTTP that sends each object evenly over some seconds, and counts what it sends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

# What is sent at once. A client that hangs up is noticed after two pieces.
_PIECES: Final = 40


@dataclass
class PacedBucket:
    """The store in directory *root* as the bucket ``bucket`` at *endpoint*; each object takes *object_s* seconds."""

    root: Path
    object_s: float
    endpoint: str = ""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes that were sent, by key."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def paced_bucket(root: Path, object_s: float) -> Iterator[PacedBucket]:
    """Serve the bucket in the block."""
    bucket = PacedBucket(root, object_s)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.split("?")[0].removeprefix("/bucket").strip("/")
            path = root / key
            data = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if path.exists() else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if not key.startswith(".objects/"):
                self.wfile.write(data)
                return
            pieces = _PIECES if bucket.object_s > 1 else 1
            for number in range(pieces):
                time.sleep(bucket.object_s / pieces)
                piece = data[len(data) * number // pieces : len(data) * (number + 1) // pieces]
                self.wfile.write(piece)
                with bucket.lock:
                    bucket.sent[key] += len(piece)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what a lost machine looks like."""

    with Server(("127.0.0.1", 0), Handler) as server:
        bucket.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield bucket
        finally:
            server.shutdown()
            thread.join()
