"""
That a bucket holds the bytes that were sent, by something that its server computed from what it received.

In this order, and none of them costs a request for each object but the last:

*digest*: the server refuses bytes that differ from the SHA-256 (or the MD5) that goes along. Whether it does is found
out by one request that is altered on purpose, under a probe's key.
*etag*: the server's ETag is the MD5 of what was sent. It needs no finding out: no server gives it by chance.
*read_back*: the object is read again and compared.
*none*: it cannot be read either, or the operator turned that off.

Where the ETag is not the MD5, reading back decides. What stays wrong is deleted: no bytes stay visible at an address
that they do not hash to.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore import exceptions as boto

from snapferry.stores.diagnosis.round_trip import DATA, FOLDER
from snapferry.stores.errors import AccessDenied, IntegrityError, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.hashing import CHUNK_BYTES

from .http.attempts import altered

if TYPE_CHECKING:
    from snapferry.stores.base import Reader

    from .backend import S3Backend

logger = logging.getLogger(__name__)

# How often bytes are sent that arrive altered.
TRIES: Final = 3

# MD5 costs 2 ms for a MiB. From here on it is worth a request to know whether the server checks SHA-256 itself.
LEARN_AFTER_BYTES: Final = 256 * 1024 * 1024

# After a question that was not answered, the next one comes so many seconds later.
ASK_AGAIN_S: Final = 60.0

MD5_DIGITS: Final = 32

# What a server says that found the altered bytes. One that computes the signature from what came says the last.
_REFUSALS: Final = {
    "BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
    "SignatureDoesNotMatch",
}  # fmt: skip


class Proof(StrEnum):
    """How it is known that a server stored what was sent."""

    DIGEST = "digest"
    ETAG = "etag"
    READ_BACK = "read_back"
    NONE = "none"


class Conduct:
    """
    What a process has learnt of one store's server.

    *proof* is None until it is known. *checksums*: ``x-amz-checksum-sha256`` goes along with what is written;
    *content_md5*: so does Content-MD5, which this server checks. *ranges*: it serves parts of an object.
    *parts* is what was learnt of the parts of an upload, for which the first two are known apart.
    """

    def __init__(self, *, checksums: bool, of_parts: bool = False) -> None:
        # A server may check whole objects and not the parts of an upload, or the other way round.
        self.parts = self if of_parts else Conduct(checksums=checksums, of_parts=True)
        self.proof: Proof | None = None
        self.checksums = checksums
        self.checksum_taken = False
        self.content_md5 = False
        self.ranges = True
        self.hashed_bytes = 0
        self.ask_again_at = 0.0
        self.lock = threading.Lock()

    def wants_md5(self, size_bytes: int) -> bool:
        """Return whether the MD5 of so many bytes that are to be sent is needed."""
        if self.proof is None:
            self.hashed_bytes += size_bytes
            return True
        return self.proof is Proof.ETAG or self.content_md5


class Tally:
    """How many objects a backend has written, by what confirmed them. Safe to share between threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, proof: Proof) -> None:
        """Count an object."""
        with self._lock:
            self._counts[proof.value] += 1

    def counts(self) -> dict[str, int]:
        """Return what was counted so far."""
        with self._lock:
            return dict(self._counts)


def md5_of(data: bytes | bytearray) -> str:
    """Return the MD5 of *data* in hex, "" on machines that have none."""
    try:
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    except ValueError:
        return ""


def sha256_base64(data: bytes | bytearray) -> str:
    """Return the SHA-256 of *data* as ``x-amz-checksum-sha256`` has it."""
    return b64encode(hashlib.sha256(data).digest()).decode()


def etag_of(answer: Mapping[str, Any]) -> str:
    """Return the ETag of boto3's *answer* without its quotes, "" where there is none."""
    return str(answer.get("ETag") or "").strip('"').lower()


def file(backend: S3Backend, key: str, data: bytes) -> None:
    """
    File *data* under *key*, and return when it is confirmed; count by what.

    Raises `IntegrityError` where other bytes arrive again and again; they were
    deleted then, or the error says that they could not be. After any other error
    nothing wrong is visible, unless the store stopped answering in between.
    """
    conduct = backend.conduct

    def undo() -> None:
        with suppress(StoreError):
            backend.delete(key)

    def send(md5: str) -> str:
        return backend.put(key, data, md5)

    try:
        proof = confirmed(backend, conduct, key, data, send, undo)
    except IntegrityError:
        # Before it is deleted: does the server compute something else by now?
        if read_back(backend, key, [piece_of(data)]) is Proof.NONE:
            remove_wrong(backend, key)
            raise
        proof = conduct.proof = Proof.READ_BACK
    else:
        if proof is Proof.READ_BACK:
            proof = _until_right(backend, key, data, send)
    backend.tally.add(proof)


class Piece(NamedTuple):
    """A stretch of an object: its length, and its SHA-256, or its MD5, in hex."""

    length: int
    digest: str


def piece_of(data: bytes | bytearray) -> Piece:
    """Return *data* as something that `read_back` can compare with."""
    return Piece(len(data), hashlib.sha256(data).hexdigest())


def _until_right(backend: S3Backend, key: str, data: bytes, send: Callable[[str], str]) -> Proof:
    pieces = [piece_of(data)]
    for _ in range(TRIES - 1):
        try:
            return read_back(backend, key, pieces)
        except IntegrityError as error:
            logger.warning("%s; sent again", error)
            send("")
    return read_back(backend, key, pieces)


def confirmed(
    backend: S3Backend,
    conduct: Conduct,
    key: str,
    data: bytes | bytearray,
    send: Callable[[str], str],
    undo: Callable[[], None] | None = None,
) -> Proof:
    """
    Send *data* until it is known how the server confirms it; return that.

    *send* sends it, with the MD5 that it is given if that is not "", and returns
    the ETag. *undo* is called before an error is raised while wrong bytes may be
    visible. `Proof.READ_BACK` and `Proof.NONE` say that nothing was compared
    yet. Raises `IntegrityError` where what arrives stays wrong.
    """
    wrong = False
    for _ in range(TRIES):
        try:
            if conduct.proof is None and conduct.hashed_bytes > LEARN_AFTER_BYTES:
                learn(backend, conduct, key)
            md5 = md5_of(data) if conduct.wants_md5(len(data)) else ""
            with_md5 = conduct.content_md5
            etag = send(md5 if with_md5 else "")
            if md5 and etag == md5:
                return Proof.DIGEST if with_md5 else Proof.ETAG
            proof = conduct.proof or learn(backend, conduct, key)
        except StoreError as error:
            if not wrong:
                raise
            if undo is not None:
                undo()
            # Where it cannot be sent again as it is, the whole may be.
            raise StoreUnavailable(
                backend.label, key, f"other bytes arrived than were sent; then: {error.detail}"
            ) from error
        except BaseException:
            if wrong and undo is not None:
                undo()
            raise
        if conduct.content_md5 and not with_md5:
            continue
        if proof is not Proof.ETAG:
            return proof
        if len(etag) != len(md5):
            # Not an MD5: this one says nothing, whatever others said.
            return Proof.READ_BACK
        wrong = True
        logger.warning("%s: %s: other bytes arrived than were sent; sent again", backend.label, key)
    raise IntegrityError(backend.label, key, f"other bytes arrived than were sent, {TRIES} times in a row")


def learn(backend: S3Backend, conduct: Conduct, key: str) -> Proof:
    """
    Find out how the server confirms what is written near *key*; once for all threads.

    One request with an altered body, which a server refuses that checks. A few more, and the
    deletion of the probe, where it does not. For parts, an upload that is aborted around them.
    """
    with conduct.lock:
        if conduct.proof is not None:
            return conduct.proof
        otherwise = Proof.READ_BACK if backend.reads_back else Proof.NONE
        if time.monotonic() < conduct.ask_again_at:
            return otherwise
        probe = f"{key.partition('/')[0]}/{FOLDER}digests"
        try:
            ask = _ask_of_parts if conduct.parts is conduct else _ask
            found, content_md5 = ask(backend, conduct, probe)
        except StoreError as error:
            logger.info("%s: how writes are confirmed cannot be told: %s", backend.label, error.detail)
            conduct.ask_again_at = time.monotonic() + ASK_AGAIN_S
            return otherwise
        conduct.content_md5 = content_md5
        conduct.proof = found or otherwise
        logger.info("%s: what is written is confirmed by: %s", backend.label, conduct.proof)
        return conduct.proof


def _ask(backend: S3Backend, conduct: Conduct, probe: str) -> tuple[Proof | None, bool]:
    """Return how the server confirms, None if it does not, and whether that is by Content-MD5."""
    versions: set[str] = set()

    def send(md5: str) -> str:
        answer = backend.put_by_boto(probe, DATA, checksum=conduct.checksums, md5=md5)
        versions.add(str(answer.get("VersionId") or ""))
        return etag_of(answer)

    try:
        return _found_with(backend, probe, send)
    finally:
        for version in versions:
            more = {"VersionId": version} if version else {}
            with suppress(StoreError), backend._errors(probe):
                backend._call("delete_object", Key=backend._prefix + probe, **more)


def _ask_of_parts(backend: S3Backend, conduct: Conduct, probe: str) -> tuple[Proof | None, bool]:
    """Return the same for the parts of an upload."""
    named = {"Key": backend._prefix + probe}
    with backend._errors(probe):
        algorithm = {"ChecksumAlgorithm": "SHA256"} if backend.conduct.checksums else {}
        begun = backend._call("create_multipart_upload", **named, **algorithm)
        named["UploadId"] = begun["UploadId"]
    checksum = {"ChecksumSHA256": sha256_base64(DATA)} if begun.get("ChecksumAlgorithm") == "SHA256" else {}

    def send(md5: str) -> str:
        more = {"ContentMD5": b64encode(bytes.fromhex(md5)).decode()} if md5 else {}
        return etag_of(backend._call("upload_part", **named, PartNumber=1, Body=DATA, **checksum, **more))

    try:
        return _found_with(backend, probe, send)
    finally:
        with suppress(StoreError), backend._errors(probe):
            backend._call("abort_multipart_upload", **named)


def _found_with(backend: S3Backend, probe: str, send: Callable[[str], str]) -> tuple[Proof | None, bool]:
    for _ in range(TRIES):
        etag = _altered_send(backend, probe, send)
        if etag is None:
            return Proof.DIGEST, False
        if etag and etag == md5_of(_ALTERED):
            return Proof.ETAG, False
    md5 = md5_of(DATA)
    if md5 and _altered_send(backend, probe, send, md5) is None:
        return Proof.DIGEST, True
    return None, False


# One bit of the probe is another: what a bad cable does.
_ALTERED: Final = bytes([DATA[0] ^ 1]) + DATA[1:]


def _altered_send(backend: S3Backend, probe: str, send: Callable[[str], str], md5: str = "") -> str | None:
    """Let *send* send a body that is altered on the way; return its ETag, None if the server refused the body."""
    try:
        with backend._errors(probe), altered(_ALTERED):
            return send(md5)
    except StoreError as error:
        cause = error.__cause__
        code = cause.response.get("Error", {}).get("Code", "") if isinstance(cause, boto.ClientError) else ""
        if code in _REFUSALS:
            return None
        raise


def read_back(backend: S3Backend, key: str, pieces: list[Piece]) -> Proof:
    """
    Read what is filed under *key*, and compare it with *pieces*; return how it is confirmed.

    Deletes it and raises `IntegrityError` if it is wrong. `Proof.NONE` where it may not be read.
    """
    if not backend.reads_back:
        return Proof.NONE
    length = sum(size for size, _ in pieces)
    try:
        with backend.open(key, size_hint=length) as reader:
            right = all(_is(reader, piece) for piece in pieces) and not reader.read(1)
    except (AccessDenied, StoreFault) as error:
        logger.warning("%s: %s was written and cannot be read back: %s", backend.label, key, error.detail)
        return Proof.NONE
    except BaseException:
        # Nobody knows what is there, and whoever looks next would count it as present.
        with suppress(StoreError):
            backend.delete(key)
        raise
    if right:
        return Proof.READ_BACK
    remove_wrong(backend, key)
    raise IntegrityError(backend.label, key, "other bytes were stored than were sent; they were deleted")


def _is(reader: Reader, piece: Piece) -> bool:
    as_md5 = len(piece.digest) == MD5_DIGITS
    found = hashlib.md5(usedforsecurity=False) if as_md5 else hashlib.sha256()
    left = piece.length
    while left and (chunk := reader.read(min(left, CHUNK_BYTES))):
        found.update(chunk)
        left -= len(chunk)
    return not left and found.hexdigest() == piece.digest


def remove_wrong(backend: S3Backend, key: str) -> None:
    """Delete what is filed under *key*, which is wrong. Raises `IntegrityError` where it stays."""
    try:
        backend.delete(key)
    except StoreError as error:
        raise IntegrityError(
            backend.label,
            key,
            f"other bytes were stored than were sent, and they cannot be deleted: {error.detail};"
            " delete this key by hand",
        ) from error
