"""A proxy that counts, operation by operation, what an S3 server receives."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from stores.requests import Requests
from tests.servers import S3Server


@contextmanager
def counting_proxy(server: S3Server) -> Iterator[tuple[S3Server, Requests]]:
    """Put a proxy before *server* that counts what passes; the signed Host header stays as the client sent it."""
    received = Requests()
    lock = threading.Lock()
    target = urlsplit(server.endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _pass_on(self) -> None:
            with lock:
                received[operation_of(self.command, self.path)] += 1
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection = http.client.HTTPConnection(target)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            said = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {
                    "transfer-encoding",
                    "connection",
                    "content-length",
                    "date",
                    "server",
                }:
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(said)))
            self.end_headers()
            self.wfile.write(said)
            connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            return None

    class Proxy(ThreadingHTTPServer):
        daemon_threads = True

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
            yield S3Server(endpoint, server.client, server.environment), received
        finally:
            proxy.shutdown()
            thread.join()


def operation_of(method: str, path: str) -> str:
    """Name what a request asks for, from its first line alone."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    has_key = "/" in parts.path.strip("/")
    mark = next((name for name in ("list-type", "uploads", "partNumber", "uploadId") if name in query), "")
    return {
        ("HEAD", "", False): "HeadBucket",
        ("HEAD", "", True): "HeadObject",
        ("GET", "", True): "GetObject",
        ("GET", "list-type", False): "ListObjectsV2",
        ("GET", "uploads", False): "ListMultipartUploads",
        ("PUT", "", True): "PutObject",
        ("POST", "uploads", True): "CreateMultipartUpload",
        ("PUT", "partNumber", True): "UploadPart",
        ("POST", "uploadId", True): "CompleteMultipartUpload",
        ("DELETE", "uploadId", True): "AbortMultipartUpload",
        ("DELETE", "", True): "DeleteObject",
    }[method, mark, has_key]
