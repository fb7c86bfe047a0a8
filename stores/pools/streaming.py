"""One object on its way from a reader to an upload: hashed while it is read, not visible before it is verified."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from snapferry.stores.address import EMPTY_ADDRESS, Address
from snapferry.stores.errors import IntegrityError, KeyMissing, ObjectMissing, StoreUnavailable
from snapferry.stores.hashing import CHUNK_BYTES, HashingReader
from snapferry.stores.runtime.containment import contained
from snapferry.stores.streams import OpenReader, Upload

logger = logging.getLogger(__name__)

CORRUPT = "the object filed here is corrupt"


@dataclass(frozen=True)
class Transfer:
    """
    What one object is read from and written to.

    *label* and *subject* are the source and the name of the object in it, for errors. *check_room* is given the length
    that the source announces, before anything is written, and may raise.
    """

    label: str
    subject: str
    address: Address
    open: Callable[[], OpenReader]
    upload: Callable[[], Upload]
    size_hint: int
    piece_bytes: int
    on_bytes: Callable[[int], None] | None = None
    check_room: Callable[[int], None] | None = None
    wrong: str = CORRUPT


def stage(transfer: Transfer) -> tuple[Upload, int]:
    """
    Read an object and write it to an upload; return the upload, not yet committed, and the object's length in bytes.

    Wrong bytes are read a second time, because the connection may have altered them. Raises `ObjectMissing` and
    `IntegrityError` for the source, and what either side raises; the upload was aborted then.
    """
    try:
        return _stage_once(transfer)
    except IntegrityError as error:
        if error.store != transfer.label:
            raise
        logger.warning("wrong bytes, reading again: %s", error)
    return _stage_once(transfer)


def _stage_once(transfer: Transfer) -> tuple[Upload, int]:
    try:
        with contained(transfer.label, transfer.subject), transfer.open() as opened:
            announced: int | None = getattr(opened, "length", None)
            if announced is not None and transfer.check_room is not None:
                transfer.check_room(announced)
            reader = HashingReader(opened, transfer.on_bytes)
            upload = transfer.upload()
            try:
                if not upload.take(opened, reader.saw):
                    _move(transfer, reader, upload, announced)
                verify(transfer.label, transfer.subject, transfer.address, reader.hexdigest(), transfer.wrong)
            except BaseException:
                upload.abort()
                raise
    except KeyMissing as error:
        if error.store != transfer.label or isinstance(error, ObjectMissing):
            raise
        raise object_missing(transfer.label, transfer.address) from error
    return upload, reader.length


def _move(transfer: Transfer, reader: HashingReader, upload: Upload, announced: int | None) -> None:
    piece = max(CHUNK_BYTES, transfer.piece_bytes)
    # One byte more than expected: a shorter answer is the end, and saves a request for it.
    want = min(max(transfer.size_hint, 0) + 1, piece)
    while True:
        chunk = reader.read(want)
        if chunk:
            upload.write(chunk)
        if len(chunk) < want:
            return
        if announced is not None and reader.length > announced:
            raise StoreUnavailable(
                transfer.label, transfer.subject, f"has more bytes than the {announced:,} that were announced"
            )
        want = piece


def verify(label: str, subject: str, address: Address, found: Address, wrong: str = CORRUPT) -> None:
    """Raise `IntegrityError` unless *found*, the address of the bytes that were read, is *address*."""
    if found != address:
        # The message never has what they hash to: the reader of the message may have no right to those bytes.
        why = "it is empty" if found == EMPTY_ADDRESS else "its bytes do not hash to its address"
        raise IntegrityError(label, subject, f"{wrong}: {why}")


def object_missing(label: str, address: Address) -> ObjectMissing:
    """Return the error for an object that the store *label* does not hold."""
    return ObjectMissing(label, address, "the object is not in this store")
