"""A multipart upload to which several processes send parts. All of them learn of it from a note in the bucket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from snapferry.stores.backends.parts_note import PartsNote, new_secret
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.backends.s3.objects.confirm import Piece
from snapferry.stores.backends.s3.objects.leftovers import ABORT_S, abort_uploads
from snapferry.stores.backends.s3.objects.multipart import (
    SentPart,
    abort_upload,
    begin_upload,
    complete,
    confirm_whole,
    send_part,
)
from snapferry.stores.backends.s3.objects.small import etag_of
from snapferry.stores.errors import PartsGone, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.features import PartsShape, PartsUpload
from snapferry.stores.runtime.interruption import grace

from .note import delete_note, note_key, read_note, write_note

_NO_UPLOAD: Final = "NoSuchUpload"
# A page has at most 1,000 parts (API reference, ListParts), and an upload 10,000.
_MAX_PAGES: Final = 100


def begin_parts(bucket: Bucket, key: str, owner: str, shape: PartsShape) -> PartsUpload:
    """As `TakesParts.begin_parts`."""
    upload, checksums = begin_upload(bucket, key)
    note = PartsNote(new_secret(), shape, upload, checksums)
    try:
        write_note(bucket, note_key(key, owner), note)
    except BaseException:
        abort_upload(bucket, key, upload)
        raise
    return _S3PartsUpload(bucket, key, owner, note)


def join_parts(bucket: Bucket, key: str, owner: str) -> PartsUpload | None:
    """As `TakesParts.join_parts`. The upload may have ended; then a write raises `PartsGone`."""
    note = read_note(bucket, note_key(key, owner))
    return None if note is None or not note.upload else _S3PartsUpload(bucket, key, owner, note)


def drop_parts(bucket: Bucket, key: str, owner: str) -> bool:
    """As `TakesParts.drop_parts`."""
    try:
        upload = join_parts(bucket, key, owner)
    except StoreError:
        return False
    return upload is None or upload.abort()


class _S3PartsUpload:
    def __init__(self, bucket: Bucket, key: str, owner: str, note: PartsNote) -> None:
        self.shape = note.shape
        self.name = note.tag
        self.secret = note.secret
        self._bucket = bucket
        self._key = key
        self._note_key = note_key(key, owner)
        self._note = note

    def write(
        self, part: int, data: bytearray, mine: Callable[[], bool], record: Callable[[str], bool], /
    ) -> None:
        # Two writers of a part do no harm: what becomes visible is the part with the ETag of the receipt.
        with self._gone():
            sent = send_part(
                self._bucket, self._key, self._note.upload, part + 1, data, checksum=self._note.checksums
            )
        if not record(_receipt(sent)):
            # A part that arrives after the abort would stay for ever.
            abort_upload(self._bucket, self._key, self._note.upload)

    def kept(self, receipts: Mapping[int, str], /) -> set[int]:
        with self._gone():
            found = dict(self._parts()) if receipts else {}
        kept = set()
        for part, receipt in receipts.items():
            with suppress(ValueError, KeyError, TypeError):
                sent = _sent(part, receipt)
                if found.get(part + 1) == (etag_of(sent.listed), sent.piece.length):
                    kept.add(part)
        return kept

    def _parts(self) -> Iterator[tuple[int, tuple[str, int]]]:
        """Yield the number of each part that is there, its ETag and its length."""
        bucket, marker = self._bucket, 0
        for _ in range(_MAX_PAGES):
            more = {"PartNumberMarker": marker} if marker else {}
            with bucket.errors(self._key):
                page = bucket.call(
                    "list_parts", Key=bucket.full_key(self._key), UploadId=self._note.upload, **more
                )
                found = [
                    (int(one["PartNumber"]), (etag_of(one), int(one["Size"])))
                    for one in page.get("Parts", ())
                ]
            yield from found
            last = max((number for number, _ in found), default=0)
            if not page.get("IsTruncated"):
                return
            if last <= marker:
                raise StoreFault(
                    bucket.label, self._key, "a listing of parts is truncated, but does not advance"
                )
            marker = last
        raise StoreFault(
            bucket.label, self._key, f"a listing of parts does not end within {_MAX_PAGES} pages"
        )

    def commit(self, settled: Callable[[], Sequence[str]], /) -> None:
        bucket = self._bucket
        receipts = dict(enumerate(settled()))
        self._check_last(receipts)
        sent = [_sent(part, receipt) for part, receipt in receipts.items()]
        with self._gone():
            etag = complete(bucket, self._key, self._note.upload, sent)
        delete_note(bucket, self._note_key)
        bucket.confirmations.add(confirm_whole(bucket, self._key, sent, etag))

    def _check_last(self, receipts: Mapping[int, str]) -> None:
        """
        Raise `PartsGone` where a part was written again after its receipt. A server should find that, too.

        A server that does not list parts, or does not let this process list them, is trusted to find it.
        """
        try:
            last = self.kept(receipts)
        except PartsGone:
            raise
        except StoreError as error:
            if error.transient:
                raise
            return
        if len(last) != len(receipts):
            raise PartsGone(self._bucket.label, self._key, "parts of its upload were written again")

    def abort(self) -> bool:
        bucket, key = self._bucket, self._key
        late = StoreUnavailable(bucket.label, key, f"was not aborted within {ABORT_S} s")
        try:
            with grace(ABORT_S, late):
                # Without the note nobody would find the upload.
                return abort_upload(bucket, key, self._note.upload) and delete_note(bucket, self._note_key)
        except StoreError:
            # It was logged. The next worker that gets the object finds the note.
            return False

    def abort_others(self) -> None:
        abort_uploads(self._bucket, self._key, self.shape.length, but=self._note.upload)

    def close(self) -> None:
        return None

    def _gone(self) -> _Gone:
        return _Gone(self._bucket.label, self._key)


class _Gone:
    """Turn the answer that there is no such upload, inside the block, into `PartsGone`."""

    def __init__(self, label: str, key: str) -> None:
        self._label = label
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreError) and code_of(error) == _NO_UPLOAD:
            raise PartsGone(self._label, self._key, "its upload in parts has ended") from error


def _receipt(sent: SentPart) -> str:
    listed = sent.listed
    return json.dumps(
        [listed["ETag"], listed.get("ChecksumSHA256", ""), sent.confirmation.value, *sent.piece]
    )


def _sent(part: int, receipt: str) -> SentPart:
    """Return the part that *receipt* is of. Raises ValueError, TypeError."""
    etag, checksum, confirmation, length, digest = json.loads(receipt)
    listed: dict[str, Any] = {"PartNumber": part + 1, "ETag": etag}
    if checksum:
        listed["ChecksumSHA256"] = checksum
    return SentPart(listed, Confirmation(confirmation), Piece(int(length), str(digest)))
