"""
The floor: the least that anybody must do to copy a store's objects, and nothing else.

    python -m benchmarks.floor files SOURCE DESTINATION
    python -m benchmarks.floor files SOURCE DESTINATION --durable
    python -m benchmarks.floor s3 ENDPOINT SOURCE DESTINATION KEYS
    python -m benchmarks.floor server-side ENDPOINT SOURCE DESTINATION KEYS
    python -m benchmarks.floor fill ENDPOINT BUCKET KEYS

Each object is read once, hashed twice (as it comes, and as it goes) and
written once, on all cores: no queue, no retries, no temporary name, nothing
asked and nothing checked. *files* takes the keys from the one manifest;
``--durable`` flushes the file system once at the end. *s3* sends one GET and
one PUT per object over plain sockets, KEYS is a file of keys, one a line;
*server-side* hashes what the GET returns, and lets the server copy. *fill*
files a byte under each of the keys, to make a bucket of strangers.

It is no way to copy anything: killed, it leaves half a file under its final name.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

from blake3 import blake3

from snapferry.stores.address import object_key, parse_address

from .measure import cores, say_seconds
from .servers import KEY, SECRET

CONNECTIONS: Final = 16
MIB: Final = 1024 * 1024
_REGION: Final = "us-east-1"
_ATTEMPTS: Final = 5
_COPIED: Final = "x-amz-copy-source"
_CRLF: Final = "\r\n"


def objects_in(manifest: bytes) -> list[str]:
    """Return the keys of the distinct objects that a *manifest* names, sorted."""
    lines = (line.split(b" ", 3) for line in manifest.split(b"\n"))
    return sorted({object_key(parse_address(line[2].decode())) for line in lines if line[0] == b"F"})


def copy_files(source: Path, destination: Path, *, durable: bool) -> None:
    """Copy the objects of the one manifest of *source*, and the manifest, to *destination*."""
    (manifest,) = (path for path in (source / ".manifests").rglob("*") if path.is_file())
    keys = [*objects_in(manifest.read_bytes()), str(manifest.relative_to(source))]
    destination.mkdir(parents=True, exist_ok=True)

    def copy(part: Sequence[str]) -> None:
        for key in part:
            _copy_file(f"{source}/{key}", f"{destination}/{key}")

    on_all_cores(keys, copy)
    if durable:
        os.sync()


def _copy_file(source: str, destination: str) -> None:
    data = read_file(source)
    blake3(data).digest()
    blake3(data).digest()
    write_file(destination, data)


def read_file(path: str) -> bytes:
    """Return the bytes of the file at *path*, by one read."""
    descriptor = os.open(path, os.O_RDONLY)
    data = os.read(descriptor, os.fstat(descriptor).st_size)
    os.close(descriptor)
    return data


def write_file(path: str, data: bytes) -> None:
    """Make the file at *path* of *data*, and the directories above it. Raises OSError if it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(path, flags, 0o644)
    except FileNotFoundError:
        os.makedirs(path.rpartition("/")[0], exist_ok=True)
        descriptor = os.open(path, flags, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


def copy_between_buckets(endpoint: str, source: str, destination: str, keys: Sequence[str]) -> None:
    """Copy *keys* from a bucket to another of the same server."""

    def one(client: Plain, key: str) -> None:
        data = client.get(source, key)
        blake3(data).digest()
        blake3(data).digest()
        client.put(destination, key, data)

    on_all_cores(keys, lambda part: on_connections(endpoint, part, one))


def copy_on_server(endpoint: str, source: str, destination: str, keys: Sequence[str]) -> None:
    """Read *keys* of a bucket and hash them, and let the server copy them to another one."""

    def one(client: Plain, key: str) -> None:
        blake3(client.get(source, key)).digest()
        client.copy(source, destination, key)

    on_all_cores(keys, lambda part: on_connections(endpoint, part, one))


def fill(endpoint: str, bucket: str, keys: Sequence[str], data: bytes) -> None:
    """File *data* under each of *keys* in *bucket*."""
    on_all_cores(
        keys, lambda part: on_connections(endpoint, part, lambda client, key: client.put(bucket, key, data))
    )


def digest_of(file: Path | None, endpoint: str, path: str) -> str:
    """Return the BLAKE3 digest of *file*, or where that is None of what an open server has at *path*."""
    hasher = blake3(max_threads=blake3.AUTO)
    with file.open("rb") if file else urlopen(f"{endpoint}{path}") as stream:
        while block := stream.read(16 * MIB):
            hasher.update(block)
    return hasher.hexdigest()


class Plain:
    """
    A connection to an S3 server: requests one after the other, signed, bodies unsigned.

    Raises RuntimeError for any answer but 200. For keys that need no escaping.
    """

    def __init__(self, endpoint: str) -> None:
        self._host = urlsplit(endpoint).netloc
        host, _, port = self._host.partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        moment = datetime.now(UTC)
        self._date, self._time = moment.strftime("%Y%m%d"), moment.strftime("%Y%m%dT%H%M%SZ")
        signing = f"AWS4{SECRET}".encode()
        for part in (self._date, _REGION, "s3", "aws4_request"):
            signing = hmac.digest(signing, part.encode(), "sha256")
        self._signing = signing

    def make_bucket(self, bucket: str) -> None:
        """Make *bucket*."""
        self._ask("PUT", f"/{bucket}", b"")

    def get(self, bucket: str, key: str) -> bytes:
        """Return the object's bytes."""
        return self._ask("GET", f"/{bucket}/{key}", b"")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """File *data* under *key*."""
        self._ask("PUT", f"/{bucket}/{key}", data)

    def copy(self, source: str, bucket: str, key: str) -> None:
        """Let the server copy the object from the bucket *source*."""
        self._ask("PUT", f"/{bucket}/{key}", b"", f"/{source}/{key}")

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()

    def _ask(self, method: str, path: str, body: bytes, copied: str = "") -> bytes:
        for _ in range(_ATTEMPTS - 1):
            status, answer = self._ask_once(method, path, body, copied)
            # A server that is busy says so with 500 at times; everybody asks again then.
            if status[1:2] != [b"500"]:
                break
        else:
            status, answer = self._ask_once(method, path, body, copied)
        if status[1:2] != [b"200"]:
            raise RuntimeError(f"{method} {path}: {b' '.join(status).decode()} {answer[:300]!r}")
        return answer

    def _ask_once(self, method: str, path: str, body: bytes, copied: str) -> tuple[list[bytes], bytes]:
        fields = {"host": self._host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
        fields |= ({_COPIED: copied} if copied else {}) | {"x-amz-date": self._time}
        headers = "".join(f"{name}:{value}\n" for name, value in fields.items())
        names = ";".join(fields)
        canonical = f"{method}\n{path}\n\n{headers}\n{names}\nUNSIGNED-PAYLOAD"
        scope = f"{self._date}/{_REGION}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{self._time}\n{scope}\n{digest}"
        signature = hmac.digest(self._signing, to_sign.encode(), "sha256").hex()
        self._socket.sendall(
            (
                f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nx-amz-date: {self._time}\r\n"
                f"{f'{_COPIED}: {copied}{_CRLF}' if copied else ''}"
                f"x-amz-content-sha256: UNSIGNED-PAYLOAD\r\nContent-Length: {len(body)}\r\n"
                f"Authorization: AWS4-HMAC-SHA256 Credential={KEY}/{scope},"
                f"SignedHeaders={names},Signature={signature}\r\n\r\n"
            ).encode()
            + body
        )
        status = self._stream.readline().split(b" ", 2)
        length = 0
        while (line := self._stream.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        return status, self._stream.read(length)


def on_connections(endpoint: str, keys: Sequence[str], do: Callable[[Plain, str], None]) -> None:
    """Do it for each of *keys* over this process's share of the connections."""
    left: Iterator[str] = iter(keys)
    lock = threading.Lock()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            client = Plain(endpoint)
            while not raised:
                with lock:
                    key = next(left, None)
                if key is None:
                    break
                do(client, key)
            client.close()
        except Exception as error:  # noqa: BLE001 - handed over to the thread that waits
            raised.append(error)

    threads = [threading.Thread(target=work) for _ in range(-(-CONNECTIONS // cores()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def on_all_cores(keys: Sequence[str], do: Callable[[Sequence[str]], None]) -> None:
    """Do it for *keys*, a part of them in each of as many processes as there are cores. Raises RuntimeError."""
    each = -(-len(keys) // cores()) or 1
    children = []
    for at in range(0, len(keys), each):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                do(keys[at : at + each])
                status = 0
            except Exception as error:  # noqa: BLE001 - all that a child can say
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    if any(ended):
        raise RuntimeError("a part of the floor failed, see above")


def main() -> None:
    match sys.argv[1:]:
        case ["files", source, destination]:
            copy_files(Path(source), Path(destination), durable=False)
        case ["files", source, destination, "--durable"]:
            copy_files(Path(source), Path(destination), durable=True)
        case ["s3", endpoint, source, destination, keys]:
            copy_between_buckets(endpoint, source, destination, Path(keys).read_text().split())
        case ["server-side", endpoint, source, destination, keys]:
            copy_on_server(endpoint, source, destination, Path(keys).read_text().split())
        case ["fill", endpoint, bucket, keys]:
            fill(endpoint, bucket, Path(keys).read_text().split(), b"x")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    say_seconds(main)
