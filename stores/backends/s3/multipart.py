"""
How a stream becomes an object in a bucket: in one request, or in parts.

*whole or not at all*: nothing shows before `commit`. *bounded*: an upload holds
one part that is whole or fills, and those that are on their way, which are up to
`PARTS_IN_FLIGHT` of 64 MiB together, and one that is larger; `part_sizes` says
how large a part can be.
"""

from __future__ import annotations

import logging
import math
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from snapferry.stores.base import Upload
from snapferry.stores.errors import StoreError, StoreUnavailable
from snapferry.stores.requests import COMPLETE_UPLOAD, CREATE_UPLOAD, PUT, UPLOAD_PART, Requests
from snapferry.stores.runtime.interruption import grace

from .confirm import Piece, Proof, confirmed, etag_of, md5_of, piece_of, read_back, sha256_base64
from .http.sockets import AnswerTooLong

if TYPE_CHECKING:
    from .backend import S3Backend

logger = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
MIN_PART_BYTES: Final = 8 * MIB
PARTS_IN_FLIGHT: Final = 4
MAX_IN_FLIGHT_BYTES: Final = 64 * MIB
# The seconds that an upload may take to abort after its owner said "stop".
ABORT_S: Final = 10

# Of what a server names an upload or a part, which is kept for each of 10,000 parts. S3 has some 150.
LONGEST_TEXT: Final = 2048

# The limits of S3. Half of the part numbers are planned for, the rest is for a stream that outgrows its hint.
MAX_PARTS: Final = 10_000
MAX_OBJECT_BYTES: Final = 5 * 1024 * 1024 * MIB
PLANNED_PARTS: Final = MAX_PARTS // 2
MIN_PLANNED_PARTS: Final = 1000


def part_sizes(size_hint: int) -> Iterator[int]:
    """
    Yield the sizes of the parts of an upload that should become *size_hint* bytes long.

    All are equal, at least 8 MiB and 1/5,000 of the hint, for as long as the
    hint holds and for the first 1,000 parts anyway. After that each is larger
    than the one before, by the step with which the last part number reaches
    5 TiB: a part is at most 1.05 GiB where the hint is right, and nears 2.1 GiB
    only at the end of 5 TiB that were announced as 40 GiB.
    """
    size = max(MIN_PART_BYTES, math.ceil(size_hint / PLANNED_PARTS / MIB) * MIB)
    planned = min(PLANNED_PARTS, max(MIN_PLANNED_PARTS, math.ceil(size_hint / size)))
    left = MAX_PARTS - planned
    beyond = MAX_OBJECT_BYTES - MAX_PARTS * size
    step = max(0, math.ceil(2 * beyond / (left * (left + 1))))
    for number in count():
        yield size + max(0, number + 1 - planned) * step


def _short(text: str, name: str) -> str:
    """Return *text*, which an upload keeps and sends back. Raises `AnswerTooLong`."""
    if len(text) > LONGEST_TEXT:
        raise AnswerTooLong(f"the {name} has {len(text)} characters; at most {LONGEST_TEXT} are accepted")
    return text


def requests_to_upload(size: int) -> Requests:
    """Return what an upload of *size* bytes, announced as such, sends. Its parts are all of one size."""
    parts = math.ceil(size / next(part_sizes(size)))
    if parts <= 1:
        return Requests({PUT: 1})
    return Requests({CREATE_UPLOAD: 1, UPLOAD_PART: parts, COMPLETE_UPLOAD: 1})


class _Part(NamedTuple):
    """A part that was sent: how the completion lists it, what confirmed it, and what to find if it is read back."""

    listed: dict[str, Any]
    proof: Proof
    piece: Piece


class S3Upload(Upload):
    """
    One PutObject for a stream that ends within its first part, a multipart upload for a longer one.

    Up to `PARTS_IN_FLIGHT` parts are sent while the next one fills. A piece
    that is as long as a part becomes the part, without being copied.
    """

    def __init__(self, backend: S3Backend, key: str, size_hint: int) -> None:
        self._backend = backend
        self._key = key
        self._full_key = backend._prefix + key
        self._sizes = part_sizes(size_hint)
        self._part_bytes = next(self._sizes)
        self._buffer = bytearray()
        self._whole: bytes | bytearray | None = None
        self._id: str | None = None
        self._sender: ThreadPoolExecutor | None = None
        self._in_flight: deque[tuple[int, Future[_Part]]] = deque()
        self._sent: list[_Part] = []
        self._checksums = False

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            # A whole part stays here until something follows it, so that the last part is never empty.
            if self._whole is not None:
                whole, self._whole = self._whole, None
                self._send(whole)
            if not self._buffer and len(rest) == len(chunk) == self._part_bytes:
                self._whole, rest = chunk, rest[:0]
            else:
                room = self._part_bytes - len(self._buffer)
                self._buffer += rest[:room]
                rest = rest[room:]
                if len(self._buffer) < self._part_bytes:
                    return
                self._whole, self._buffer = self._buffer, bytearray()
            self._part_bytes = next(self._sizes)

    def commit(self) -> None:
        backend = self._backend
        last = self._buffer if self._whole is None else self._whole
        self._buffer, self._whole = bytearray(), None
        if self._id is None:
            backend.write(self._key, bytes(last))
            return
        self._send(last)
        while self._in_flight:
            self._wait_for_one()
        with backend._errors(self._key):
            # The store answers 200 before it knows. boto3 finds an error that follows; that nothing
            # follows is found by asking for what must be there.
            answer = backend._call(
                "complete_multipart_upload",
                Key=self._full_key,
                UploadId=self._id,
                MultipartUpload={"Parts": [part.listed for part in self._sent]},
            )
            etag = etag_of({"ETag": answer["ETag"]})
        self._id = None
        self._stop_sending()
        backend.tally.add(self._confirm(etag))

    def _confirm(self, etag: str) -> Proof:
        """Return how all that was sent is confirmed. Raises `IntegrityError`."""
        proofs = {part.proof for part in self._sent}
        if proofs == {Proof.DIGEST}:
            return Proof.DIGEST
        if proofs == {Proof.ETAG}:
            # The parts are right. Of the whole an ETag tells something if it has the usual form.
            whole = md5_of(b"".join(bytes.fromhex(part.piece.digest) for part in self._sent))
            found, _, count = etag.partition("-")
            if found == whole or len(found) != len(whole) or count != str(len(self._sent)):
                return Proof.ETAG
        return read_back(self._backend, self._key, [part.piece for part in self._sent])

    def abort(self) -> None:
        self._buffer, self._whole = bytearray(), None
        # A part that arrives after the abort would stay for good, so those in flight come to their end first.
        self._stop_sending()
        upload, self._id = self._id, None
        if upload is None:
            return
        late = StoreUnavailable(self._backend.label, self._key, f"was not aborted within {ABORT_S} s")
        try:
            with grace(ABORT_S, late), self._backend._errors(self._key):
                self._backend._call("abort_multipart_upload", Key=self._full_key, UploadId=upload)
        except StoreError as error:
            logger.warning("an unfinished multipart upload may be left behind: %s", error)

    def _send(self, part: bytes | bytearray) -> None:
        if self._id is None:
            more = {"ChecksumAlgorithm": "SHA256"} if self._backend.conduct.checksums else {}
            with self._backend._errors(self._key):
                begun = self._backend._call("create_multipart_upload", Key=self._full_key, **more)
                self._id = _short(begun["UploadId"], "id of an upload")
            # A server that knows nothing of checksums does not repeat it.
            self._checksums = begun.get("ChecksumAlgorithm") == "SHA256"
        if self._sender is None:
            self._sender = ThreadPoolExecutor(PARTS_IN_FLIGHT, "s3-part")
        while self._in_flight and not self._has_room(len(part)):
            self._wait_for_one()
        number = len(self._sent) + len(self._in_flight) + 1
        sending = self._sender.submit(copy_context().run, self._send_part, self._id, number, part)
        self._in_flight.append((len(part), sending))

    def _has_room(self, size_bytes: int) -> bool:
        on_their_way = sum(length for length, _ in self._in_flight)
        return len(self._in_flight) < PARTS_IN_FLIGHT and on_their_way + size_bytes <= MAX_IN_FLIGHT_BYTES

    def _send_part(self, upload: str, number: int, part: bytes | bytearray) -> _Part:
        listed: dict[str, Any] = {"PartNumber": number}
        more = {"ChecksumSHA256": sha256_base64(part)} if self._checksums else {}
        conduct = self._backend.conduct.parts

        def send(content_md5: str) -> str:
            if content_md5:
                more["ContentMD5"] = b64encode(bytes.fromhex(content_md5)).decode()
            with self._backend._errors(self._key):
                answer = self._backend._call(
                    "upload_part", Key=self._full_key, UploadId=upload, PartNumber=number, Body=part, **more
                )
                listed["ETag"] = _short(answer["ETag"], "ETag of a part")
            return etag_of(answer)

        proof = confirmed(self._backend, conduct, self._key, part, send)
        if self._checksums:
            listed["ChecksumSHA256"] = more["ChecksumSHA256"]
        etag = etag_of(listed)
        return _Part(listed, proof, Piece(len(part), etag) if proof is Proof.ETAG else piece_of(part))

    def _wait_for_one(self) -> None:
        _, sending = self._in_flight.popleft()
        self._sent.append(sending.result())

    def _stop_sending(self) -> None:
        if self._sender is not None:
            self._sender.shutdown(cancel_futures=True)
            self._sender = None
        self._in_flight.clear()
