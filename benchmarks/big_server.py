"""
A small S3 server for objects larger than memory and disk: ``python -m benchmarks.big_server DIRECTORY PORT [RATE]``.

Each folder of the directory is a bucket, and the files in it are objects. What
is written takes the place on disk of its blocks that are not zero; what is read
costs no page cache where a file has holes. So a sparse object of 20 GB is
copied on any machine, and what limits is the client, the copying through the
loopback, and the check of the digests that the client sent with each part.

It checks no signatures, and remembers what was written until it ends. With RATE, each connection moves at most so many
bytes of bodies per second.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from .big_buckets import BLOCK_BYTES, Buckets, MultipartUpload, Object, Piece, Refused, no_md5, write_sparse

PAGE_KEYS: Final = 1000


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    buckets: Buckets
    rate: float = math.inf
    _free_at: float = 0.0

    def _pace(self, size_bytes: int) -> None:
        """Sleep until this connection may have moved that many bytes more."""
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + size_bytes / self.rate
        if self._free_at > now:
            time.sleep(self._free_at - now)

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        self._left = int(self.headers.get("Content-Length", 0))
        try:
            if not (self.buckets.root / bucket).is_dir() and (self.command, key) != ("PUT", ""):
                raise Refused(404, "NoSuchBucket")
            if key:
                self._serve_key(bucket, key, query)
            else:
                self._serve_bucket(bucket, query)
        except Refused as refused:
            # What was not read of the body would be taken for the next request.
            self.close_connection = self._left > 0
            text = "" if self.command == "HEAD" else f"<Error><Code>{refused.code}</Code></Error>"
            self._say(text, refused.status)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

    def _serve_bucket(self, bucket: str, query: dict[str, str]) -> None:
        if self.command == "PUT":
            (self.buckets.root / bucket).mkdir(exist_ok=True)
        if self.command == "GET" and "uploads" in query:
            self._say(self._listed_uploads(bucket, query.get("prefix", "")))
        elif self.command == "GET":
            self._say(self._listed(bucket, query))
        else:
            self._say("")

    def _serve_key(self, bucket: str, key: str, query: dict[str, str]) -> None:
        number = query.get("uploadId", "")
        if self.command == "GET" and number:
            self._say(self._listed_parts(number))
        elif self.command in {"GET", "HEAD"}:
            self._send(self.buckets.find(bucket, key))
        elif self.command == "PUT" and number:
            self.buckets.upload(number)
            piece = self._receive()
            # An abort may have come while the part did.
            self.buckets.upload(number).parts[int(query["partNumber"])] = piece
            self._say("", headers={"ETag": f'"{piece.etag}"'})
        elif self.command == "PUT":
            piece = self._receive()
            announced = self.headers.get("x-amz-content-sha256", "")
            etag = no_md5(piece.etag) if announced.startswith(piece.etag) else piece.etag
            self.buckets.put(bucket, key, Object((piece,), etag, self._kept_headers()))
            self._say("", headers={"ETag": f'"{etag}"'})
        elif self.command == "POST" and "uploads" in query:
            number = self.buckets.begin(MultipartUpload(bucket, key, self._kept_headers()))
            self._say(
                f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            )
        elif self.command == "POST" and number:
            text = self.rfile.read(self._left).decode()
            self._left = 0
            numbers = re.findall(r"<PartNumber>(\d+)<", text)
            etags = re.findall(r"<ETag>(?:\"|&quot;|&#34;)?(\w+)", text)
            wanted = [(int(part), etag) for part, etag in zip(numbers, etags, strict=True)]
            etag = self.buckets.complete(number, wanted).etag
            self._say(
                f"<CompleteMultipartUploadResult><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
            )
        elif self.command == "DELETE" and number:
            self.buckets.abort(number)
            self._say("", 204)
        elif self.command == "DELETE":
            self.buckets.put(bucket, key, None)
            self._say("", 204)
        else:
            raise Refused(501, "NotImplemented")

    def _kept_headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}

    def _send(self, found: Object) -> None:
        start, stop, status = 0, found.length, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        wanted = self.headers.get("If-Match", "").strip('"')
        if wanted and wanted != found.etag:
            raise Refused(412, "PreconditionFailed")
        headers = {"ETag": f'"{found.etag}"', "Accept-Ranges": "bytes", **found.headers}
        headers["Last-Modified"] = formatdate(found.modified, usegmt=True)
        if asked:
            start, status = int(asked[1]), 206
            stop = min(stop, int(asked[2]) + 1) if asked[2] else stop
            if start >= found.length:
                raise Refused(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.length}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command != "HEAD":
            for block in found.read(start, stop):
                self.connection.sendall(block)
                self._pace(len(block))

    def _receive(self) -> Piece:
        """Take in the body, and check it against the digests that came with it."""
        announced = self.headers.get("x-amz-content-sha256", "")
        sha256 = hashlib.sha256() if re.fullmatch(r"[0-9a-f]{64}", announced) else None
        content_md5 = self.headers.get("Content-MD5")
        md5 = hashlib.md5() if content_md5 or sha256 is None else None
        digests = [digest for digest in (sha256, md5) if digest is not None]
        path = self.buckets.new_path()
        length = 0
        with path.open("wb") as file:
            for block in self._chunks() if announced.startswith("STREAMING-") else self._blocks():
                for digest in digests:
                    digest.update(block)
                write_sparse(file.fileno(), length, block)
                length += len(block)
                self._pace(len(block))
            file.truncate(length)
        if sha256 is not None and sha256.hexdigest() != announced:
            raise Refused(400, "XAmzContentSHA256Mismatch")
        if md5 is not None and content_md5 and base64.b64decode(content_md5) != md5.digest():
            raise Refused(400, "BadDigest")
        return Piece(path, length, md5.hexdigest() if md5 is not None else announced[:32])

    def _blocks(self) -> Iterator[memoryview]:
        room = memoryview(bytearray(min(BLOCK_BYTES, self._left)))
        while self._left:
            got = self.rfile.readinto(room[: self._left])
            if not got:
                raise ConnectionResetError
            self._left -= got
            yield room[:got]

    def _chunks(self) -> Iterator[memoryview]:
        """Yield the body without the framing of ``aws-chunked``."""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            while size:
                block = self.rfile.read(min(size, BLOCK_BYTES))
                size -= len(block)
                yield memoryview(block)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        self._left = 0

    def _listed(self, bucket: str, query: dict[str, str]) -> str:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        mark = query.get("continuation-token") or query.get("start-after") or query.get("marker", "")
        most = min(int(query.get("max-keys", PAGE_KEYS)), PAGE_KEYS)
        entries: list[str] = []
        folders: set[str] = set()
        last, goes_on = "", False
        with self.buckets.lock:
            found = sorted((key, made) for (of, key), made in self.buckets.objects.items() if of == bucket)
        for key, made in found:
            if not key.startswith(prefix) or key <= mark:
                continue
            if len(entries) + len(folders) >= most:
                goes_on = True
                break
            last = key
            rest, cut, _ = key[len(prefix) :].partition(delimiter or "\0")
            if delimiter and cut:
                folders.add(prefix + rest + delimiter)
                continue
            entries.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{made.length}</Size><ETag>&quot;{made.etag}&quot;</ETag>"
                f"<LastModified>{_iso(made.modified)}</LastModified></Contents>"
            )
        ending = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if goes_on else ""
        ending += "".join(
            f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)
        )
        text = f"<Name>{bucket}</Name><IsTruncated>{str(goes_on).lower()}</IsTruncated>{ending}"
        return f"<ListBucketResult>{text}{''.join(entries)}</ListBucketResult>"

    def _listed_uploads(self, bucket: str, prefix: str) -> str:
        entries = [
            f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{number}</UploadId>"
            f"<Initiated>{_iso(upload.begun)}</Initiated></Upload>"
            for number, upload in sorted(self.buckets.uploads.items())
            if upload.bucket == bucket and upload.key.startswith(prefix)
        ]
        text = f"<Bucket>{bucket}</Bucket><IsTruncated>false</IsTruncated>{''.join(entries)}"
        return f"<ListMultipartUploadsResult>{text}</ListMultipartUploadsResult>"

    def _listed_parts(self, number: str) -> str:
        """Return all parts of an upload on one page, also more than Amazon puts there."""
        entries = [
            f"<Part><PartNumber>{part}</PartNumber><ETag>&quot;{piece.etag}&quot;</ETag><Size>{piece.length}</Size></Part>"
            for part, piece in sorted(self.buckets.upload(number).parts.items())
        ]
        return f"<ListPartsResult><IsTruncated>false</IsTruncated>{''.join(entries)}</ListPartsResult>"

    def _say(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


class Server(ThreadingHTTPServer):
    """The server of *root*."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: Path, port: int, rate: float = math.inf) -> None:
        bound = {"buckets": Buckets(root), "rate": rate}
        super().__init__(("127.0.0.1", port), type("BoundHandler", (Handler,), bound))

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


if __name__ == "__main__":
    Server(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:])).serve_forever()
