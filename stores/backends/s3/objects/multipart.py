"""
Write a stream: by one PutObject if it ends within its first part, by a multipart upload if it is longer.

*whole or not at all*: nothing is visible before `commit`.
*bounded*: an upload holds one part that is complete or being filled, and the parts in flight: up to `PARTS_IN_FLIGHT`
of 64 MiB together, or one larger part. `sizes.part_sizes` sets how large a part can be.

The operations are described in Amazon's user guide, "Uploading and copying objects using multipart upload".
"""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final, NamedTuple

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import NewPart
from snapferry.stores.backends.s3.errors import code_of
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.backends.s3.http.errors import AnswerTooLong
from snapferry.stores.backends.s3.sizes import MAX_IN_FLIGHT_BYTES, PARTS_IN_FLIGHT, part_sizes
from snapferry.stores.errors import StoreError, StoreUnavailable
from snapferry.stores.requests import UPLOAD_PART
from snapferry.stores.runtime.interruption import grace
from snapferry.stores.streams import Buffer, GivesPieces, Reader, Upload

from .conditions import only_over
from .confirm import Piece, read_back, send_confirmed, write
from .leftovers import ABORT_S, create_upload
from .small import NO_CONDITION, content_md5_header, etag_of, md5_of, with_checksum

logger = logging.getLogger(__name__)

# The longest id of an upload and the longest ETag of a part. Both are kept, for up to 10,000 parts. Amazon's ids have
# about 150 characters.
MAX_TEXT: Final = 2048


def short(text: str, name: str) -> str:
    """Return *text*, which is kept and sent back later. Raises `AnswerTooLong`."""
    if len(text) > MAX_TEXT:
        raise AnswerTooLong(f"the {name} has {len(text)} characters; at most {MAX_TEXT} are accepted")
    return text


def abort_upload(bucket: Bucket, key: str, upload: str) -> bool:
    """
    Abort the *upload* to *key*, also after its owner has stopped it; return whether there is none any more.

    Never raises `StoreError`.
    """
    late = StoreUnavailable(bucket.label, key, f"was not aborted within {ABORT_S} s")
    try:
        with grace(ABORT_S, late), bucket.errors(key):
            bucket.call("abort_multipart_upload", Key=bucket.full_key(key), UploadId=upload)
    except StoreError as error:
        if code_of(error) != "NoSuchUpload":
            logger.warning("an unfinished multipart upload may be left behind: %s", error)
            return False
    return True


class SentPart(NamedTuple):
    """A part that was sent."""

    listed: dict[str, Any]
    """The part as CompleteMultipartUpload lists it."""
    confirmation: Confirmation
    piece: Piece
    """What `read_back` compares the object with."""


def begin_upload(bucket: Bucket, key: str) -> tuple[str, bool]:
    """Begin an upload; return its id, and whether its parts are to be sent with their SHA-256."""

    def create(checksum: bool) -> tuple[str, bool]:
        more = {"ChecksumAlgorithm": "SHA256"} if checksum else {}
        created = create_upload(bucket, key, **more)
        with bucket.errors(key):
            # A server that does not support checksums does not repeat this, or rejects it.
            checksums = created.get("ChecksumAlgorithm") == "SHA256"
            return short(created["UploadId"], "id of an upload"), checksums

    return with_checksum(bucket, bucket.features.parts, create)


def send_part(
    bucket: Bucket, key: str, upload: str, number: int, part: bytes | bytearray, *, checksum: bool
) -> SentPart:
    """Send *part*, as the part with this *number* counted from 1, until the server confirms it."""
    listed: dict[str, Any] = {"PartNumber": number}
    # Once for all of its uses: as what is signed, as the checksum, and as what is compared later.
    sha256 = hashlib.sha256(part).digest()
    digest = {"ChecksumSHA256": b64encode(sha256).decode()} if checksum else {}

    def send_by_boto(md5: str) -> str:
        answer = bucket.call(
            "upload_part",
            Key=bucket.full_key(key),
            UploadId=upload,
            PartNumber=number,
            Body=part,
            **digest,
            **content_md5_header(md5),
        )
        return str(answer["ETag"])

    def send(md5: str) -> str:
        new = NewPart(upload, number, part, sha256, md5, checksum)
        with bucket.errors(key):
            etag = bucket.direct_or_boto(
                UPLOAD_PART,
                lambda path: path.put_part(key, new),
                lambda: send_by_boto(md5),
                body_bytes=len(part),
            )
            listed["ETag"] = short(etag, "ETag of a part")
        return etag_of(listed)

    found = send_confirmed(bucket, bucket.features.parts, key, part, send)
    listed |= digest
    etag = etag_of(listed)
    return SentPart(listed, found, Piece(len(part), etag if found is Confirmation.ETAG else sha256.hex()))


def complete(
    bucket: Bucket,
    key: str,
    upload: str,
    sent: Sequence[SentPart],
    condition: Mapping[str, str] = NO_CONDITION,
) -> str:
    """Make the parts that were *sent* visible as one object; return its ETag."""
    with bucket.errors(key):
        # The server sends 200 before it knows the result. boto3 finds an error in the body. A body that ends
        # early is found because it lacks the ETag.
        answer = bucket.call(
            "complete_multipart_upload",
            Key=bucket.full_key(key),
            UploadId=upload,
            MultipartUpload={"Parts": [part.listed for part in sent]},
            **condition,
        )
        return etag_of({"ETag": answer["ETag"]})


def confirm_whole(bucket: Bucket, key: str, sent: Sequence[SentPart], etag: str) -> Confirmation:
    """Return how the whole object is confirmed, which has *etag*. Raises `IntegrityError`."""
    found = {part.confirmation for part in sent}
    if found == {Confirmation.DIGEST}:
        return Confirmation.DIGEST
    if found == {Confirmation.ETAG}:
        # The parts are right. The ETag of the whole object proves something only if it has the usual form: the
        # MD5 of the MD5s of the parts, and their number.
        whole = md5_of(b"".join(bytes.fromhex(part.piece.digest) for part in sent))
        digest, _, count = etag.partition("-")
        if digest == whole or len(digest) != len(whole) or count != str(len(sent)):
            return Confirmation.ETAG
    return read_back(bucket, key, [part.piece for part in sent])


class S3Upload(Upload):
    """
    An `Upload` that sends up to `PARTS_IN_FLIGHT` parts while the next one fills.

    A chunk that is as long as a part becomes the part without being copied.
    """

    def __init__(self, bucket: Bucket, key: str, size_hint: int) -> None:
        self._bucket = bucket
        self._key = key
        self._sizes = part_sizes(size_hint)
        self._part_bytes = next(self._sizes)
        self._buffer = bytearray()
        self._whole: bytes | bytearray | None = None
        self._id: str | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._in_flight: deque[tuple[bytes | bytearray, Future[SentPart]]] = deque()
        # What is lent by a reader, by its `id`, and goes back to it when it was sent.
        self._lent: dict[int, GivesPieces] = {}
        self._sent: list[SentPart] = []
        self._checksums = False
        self._over: str | None = None

    def write(self, chunk: bytes | bytearray) -> None:
        rest = memoryview(chunk)
        while rest:
            # A complete part waits here until more bytes follow, so that the last part is never empty.
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

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        if not isinstance(reader, GivesPieces):
            return False
        while piece := reader.give():
            show(piece)
            self.write(piece)
            if self._whole is piece:
                self._lent[id(piece)] = reader
            else:
                reader.take_back(piece)
        return True

    def only_over(self, version: str) -> None:
        self._over = version

    def commit(self) -> None:
        bucket = self._bucket
        last = self._buffer if self._whole is None else self._whole
        self._buffer, self._whole = bytearray(), None
        if self._id is None:
            write(bucket, self._key, bytes(last), self._over)
            return
        self._send(last)
        while self._in_flight:
            self._wait_for_one()
        etag = only_over(bucket, self._key, self._over, self._complete)
        self._id = None
        self._stop_sending()
        bucket.confirmations.add(confirm_whole(bucket, self._key, self._sent, etag))

    def _complete(self, condition: Mapping[str, str]) -> str:
        assert self._id is not None
        return complete(self._bucket, self._key, self._id, self._sent, condition)

    def abort(self) -> None:
        self._buffer, self._whole = bytearray(), None
        # A part that arrives after the abort would stay for ever, so wait for the parts in flight.
        self._stop_sending()
        upload, self._id = self._id, None
        if upload is not None:
            abort_upload(self._bucket, self._key, upload)

    def _send(self, part: bytes | bytearray) -> None:
        upload = self._id or self._create()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(PARTS_IN_FLIGHT, "s3-part")
        # The memory of parts that were sent is released as soon as possible.
        while self._in_flight and (self._in_flight[0][1].done() or not self._has_room(len(part))):
            self._wait_for_one()
        number = len(self._sent) + len(self._in_flight) + 1
        sending = self._executor.submit(copy_context().run, self._send_part, upload, number, part)
        self._in_flight.append((part, sending))

    def _create(self) -> str:
        self._id, self._checksums = begin_upload(self._bucket, self._key)
        return self._id

    def _has_room(self, size_bytes: int) -> bool:
        in_flight_bytes = sum(len(part) for part, _ in self._in_flight)
        return len(self._in_flight) < PARTS_IN_FLIGHT and in_flight_bytes + size_bytes <= MAX_IN_FLIGHT_BYTES

    def _send_part(self, upload: str, number: int, part: bytes | bytearray) -> SentPart:
        return send_part(self._bucket, self._key, upload, number, part, checksum=self._checksums)

    def _wait_for_one(self) -> None:
        part, sending = self._in_flight.popleft()
        self._sent.append(sending.result())
        lender = self._lent.pop(id(part), None)
        if lender is not None and isinstance(part, bytearray):
            lender.take_back(part)

    def _stop_sending(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
        self._in_flight.clear()
