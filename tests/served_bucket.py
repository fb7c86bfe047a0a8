"""The directory of a store as a bucket over HTTP, which can only be read, and whose bodies a test sends as it likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Write = Callable[[bytes], object]
Send = Callable[[str, bytes, Write], None]


@contextmanager
def served_bucket(root: Path, send: Send) -> Iterator[str]:
    """
    Serve *root* as the bucket ``bucket`` in the block; yield the endpoint.

    *send* is called with the key, the data and a function that writes, for each answer that has a body.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.split("?")[0].removeprefix("/bucket").strip("/")
            path = root / key
            data = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if path.exists() else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                send(key, data, self.wfile.write)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # All objects in flight may connect at once; who finds the queue full tries again after seconds.
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what a lost machine, or the end of a test, looks like."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
