"""The note about an upload: a small object in a folder whose name cannot be a part of an address."""

from __future__ import annotations

import logging
from typing import Final

from snapferry.stores.backends.parts_note import LARGEST_NOTE, PartsNote, decode_note
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.objects.small import delete, get, put
from snapferry.stores.errors import KeyMissing, StoreError

logger = logging.getLogger(__name__)

FOLDER: Final = ".snapferry-parts/"


def note_key(key: str, owner: str) -> str:
    """Return the key of the note about the upload to *key* for *owner*."""
    space, _, rest = key.partition("/")
    return f"{space}/{FOLDER}{rest.replace('/', '')}-{owner}"


def write_note(bucket: Bucket, key: str, note: PartsNote) -> None:
    """File *note* under *key*. Raises `StoreError`."""
    put(bucket, key, note.encode())


def read_note(bucket: Bucket, key: str) -> PartsNote | None:
    """Return the note under *key*; None where there is none, or none that can be read. Raises `StoreError`."""
    try:
        reader, _ = get(bucket, key, LARGEST_NOTE)
    except KeyMissing:
        return None
    with reader:
        return decode_note(reader.read(LARGEST_NOTE + 1))


def delete_note(bucket: Bucket, key: str) -> bool:
    """Delete the note under *key*; return False if that is to be tried again. Never raises `StoreError`."""
    try:
        delete(bucket, key)
    except StoreError as error:
        # Many writers have no right to delete. The upload has ended, so the secret in the note is worthless.
        logger.info("the note about an upload in parts stays: %s", error)
        return not error.transient
    return True
