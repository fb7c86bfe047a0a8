"""A bucket from which one object comes slowly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class SlowBucket:
    """A store's directory as a bucket over HTTP; *slow_key* comes in drops until `hurry` is set."""

    root: Path
    slow_key: str
    endpoint: str = ""
    pause_s: float = 0.05
    """Before each drop of 64 KiB."""
    hurry: threading.Event = field(default_factory=threading.Event)
    running: int = 0
    most_running: int = 0
    gets: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.gets += 1
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1


@contextmanager
def slow_bucket(root: Path, slow_key: str, pause_s: float = 0.05) -> Iterator[SlowBucket]:
    bucket = SlowBucket(root, slow_key, pause_s=pause_s)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.split("?")[0].removeprefix("/bucket").strip("/")
            path = bucket.root / key
            self.send_response(200 if path.exists() else 404)
            data = path.read_bytes() if path.is_file() else b""
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if key != bucket.slow_key:
                self.wfile.write(data)
                return
            with bucket.counted():
                for at in range(0, len(data), 65536):
                    bucket.hurry.wait(bucket.pause_s)
                    self.wfile.write(data[at : at + 65536])

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # All objects in flight may connect at once; who finds the queue full tries again after seconds.
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what the end of a test looks like."""

    with Server(("127.0.0.1", 0), Handler) as server:
        bucket.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield bucket
        finally:
            bucket.hurry.set()
            server.shutdown()
            thread.join()
