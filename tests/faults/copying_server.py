"""
An S3 server in memory that copies objects by itself, as Amazon does, behind hooks with which a test spoils it.

It enforces the conditions of copies, which neither rclone's server nor moto does.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from tests.faults.stub_s3 import Answer, Request, Stub, error, serving


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def tag(data: bytes) -> str:
    return f'"{md5(data)}"'


@dataclass
class CopyingServer:
    """
    A running server. *objects*: path -> bytes. *uploads*: id -> its parts. *etags*: path -> an ETag other than the MD5.

    *before* is called with each request, and its answer, if it has one, is given instead. *copies* are the headers of
    the requests that copied a whole object, *sent* the bytes that came in bodies of objects and parts. *deletes* is
    what it does with a condition on a deletion.
    """

    stub: Stub
    enforces: bool = True
    deletes: Literal["enforces", "ignores", "rejects", "lies"] = "enforces"
    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    copies: list[dict[str, str]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    before: Callable[[str, Request], Answer | None] = lambda _, __: None

    def url(self, place: str) -> str:
        return f"s3://{place}?endpoint_url={self.stub.endpoint}"

    def etag(self, path: str) -> str:
        return self.etags.get(path) or tag(self.objects[path])

    def held(self, bucket: str) -> dict[str, bytes]:
        """Return the objects in *bucket*, without probes."""
        return {
            path: data
            for path, data in self.objects.items()
            if path.startswith(f"/{bucket}/") and "probe" not in path
        }

    def answer(self, request: Request) -> Answer:
        operation = _operation(request)
        if "probe" not in request.path:
            self.asked[operation] += 1
        given = self.before(operation, request)
        return given if given is not None else self._answer(operation, request)

    def _answer(self, operation: str, request: Request) -> Answer:
        path = unquote(request.path)
        match operation:
            case "HeadBucket":
                return Answer()
            case "ListObjectsV2":
                return _xml("ListBucketResult", "<IsTruncated>false</IsTruncated>")
            case "ListMultipartUploads":
                begun = "".join(
                    f"<Upload><Key>{upload.partition(path + '/')[2]}</Key><UploadId>{upload}</UploadId></Upload>"
                    for upload in self.uploads
                    if path + "/" in upload
                )
                return _xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{begun}")
            case "GetObject" | "HeadObject":
                return self._read(path, request)
            case "PutObject":
                self.sent += len(request.body)
                self.objects[path] = request.body
                self.etags.pop(path, None)
                return Answer()
            case "DeleteObject":
                return self._delete(path, request)
            case "CopyObject":
                return self._copy(path, request)
            case "CreateMultipartUpload":
                upload = f"upload-{self.asked.total()}-{path}"
                self.uploads[upload] = {}
                return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
            case "AbortMultipartUpload":
                self.uploads.pop(request.query["uploadId"], None)
                return Answer(204)
        return self._part(operation, path, request)

    def _delete(self, path: str, request: Request) -> Answer:
        wanted = request.headers.get("If-Match")
        if wanted is not None and self.deletes != "ignores":
            if self.deletes == "rejects":
                return error(501, "NotImplemented")
            held = path in self.objects
            if not held or wanted != self.etag(path):
                if self.deletes == "lies":
                    self.objects.pop(path, None)
                return error(412 if held else 404, "PreconditionFailed" if held else "NoSuchKey")
        self.objects.pop(path, None)
        return Answer(204)

    def _part(self, operation: str, path: str, request: Request) -> Answer:
        parts = self.uploads.get(request.query["uploadId"])
        if parts is None:
            return error(404, "NoSuchUpload")
        number = int(request.query.get("partNumber", 0))
        match operation:
            case "UploadPart":
                self.sent += len(request.body)
                parts[number] = request.body
                return Answer()
            case "UploadPartCopy":
                origin = self._origin(request)
                if isinstance(origin, Answer):
                    return origin
                wanted = request.headers["x-amz-copy-source-range"]
                first, last = map(int, wanted.removeprefix("bytes=").split("-"))
                parts[number] = self.objects[origin][first : last + 1]
                return _xml("CopyPartResult", f"<ETag>{tag(parts[number])}</ETag>")
        self.objects[path] = b"".join(parts[number] for number in sorted(parts))
        digests = b"".join(bytes.fromhex(md5(parts[number])) for number in sorted(parts))
        self.etags[path] = f'"{md5(digests)}-{len(parts)}"'
        del self.uploads[request.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<ETag>{self.etags[path]}</ETag>")

    def _copy(self, path: str, request: Request) -> Answer:
        origin = self._origin(request)
        if isinstance(origin, Answer):
            return origin
        if "probe" not in path:
            self.copies.append({name.lower(): value for name, value in request.headers.items()})
        self.objects[path] = self.objects[origin]
        self.etags.pop(path, None)
        return _xml("CopyObjectResult", f"<ETag>{self.etag(path)}</ETag>")

    def _origin(self, request: Request) -> str | Answer:
        origin = "/" + unquote(request.headers["x-amz-copy-source"]).lstrip("/")
        if origin not in self.objects:
            return error(404, "NoSuchKey")
        wanted = request.headers.get("x-amz-copy-source-if-match")
        if self.enforces and wanted != self.etag(origin):
            return error(412, "PreconditionFailed")
        return origin

    def _read(self, path: str, request: Request) -> Answer:
        if path not in self.objects:
            return error(404, "NoSuchKey" if request.method == "GET" else "")
        data, headers = self.objects[path], {"ETag": self.etag(path)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if request.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            return error(412, "PreconditionFailed")
        if request.method == "HEAD":
            return Answer(200, b"", headers, length=len(data))
        if wanted is None:
            return Answer(200, data, headers)
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        return Answer(
            206,
            data[first : last + 1],
            headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"},
        )


def _operation(request: Request) -> str:
    copies = "x-amz-copy-source" in {name.lower() for name in request.headers}
    in_bucket = request.path.count("/") == 1
    if request.method == "GET" and in_bucket:
        return "ListMultipartUploads" if "uploads" in request.query else "ListObjectsV2"
    if request.method == "HEAD":
        return "HeadBucket" if in_bucket else "HeadObject"
    if request.method == "POST":
        return "CreateMultipartUpload" if "uploads" in request.query else "CompleteMultipartUpload"
    if "uploadId" in request.query:
        kind = "UploadPartCopy" if copies else "UploadPart"
        return kind if request.method == "PUT" else "AbortMultipartUpload"
    return {"GET": "GetObject", "DELETE": "DeleteObject", "PUT": "CopyObject" if copies else "PutObject"}[
        request.method
    ]


def _xml(name: str, content: str) -> Answer:
    return Answer(200, f"<{name}>{content}</{name}>".encode(), {"Content-Type": "application/xml"})


@contextmanager
def copying_server() -> Iterator[CopyingServer]:
    """Run a server with the buckets that are asked for."""
    with serving() as stub:
        server = CopyingServer(stub)
        stub.answer = server.answer
        yield server
