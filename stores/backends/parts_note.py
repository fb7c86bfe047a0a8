"""
What a store remembers of an object that is being copied in parts, so that other processes can join.

The note is kept in the destination and nowhere else, because it holds a secret. With that secret, the processes that
may write to the destination sign what they tell each other about parts.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any, Final, NamedTuple

from snapferry.stores.features import PartsShape

FORM: Final = 1
SECRET_BYTES: Final = 32
MOST_PARTS: Final = 10_000
LARGEST_NOTE: Final = 16 * 1024
# A process holds whole parts in memory, and a store may send any note.
LARGE_PART_BYTES: Final = 64 * 1024 * 1024
_LONGEST: Final = 4096


class PartsNote(NamedTuple):
    """
    The note of an upload: its *secret*, the *shape* of the object, and the store's own *upload* id, "" for none.

    *checksums*: each part is sent with its SHA-256.
    """

    secret: bytes
    shape: PartsShape
    upload: str = ""
    checksums: bool = False

    @property
    def tag(self) -> str:
        """A name for the upload, which tells nothing about the secret."""
        return hashlib.sha256(b"snapferry parts\0" + self.secret).hexdigest()[:24]

    def encode(self) -> bytes:
        """Return the note as it is kept."""
        fields = {
            "form": FORM, "secret": self.secret.hex(), "upload": self.upload, "checksums": self.checksums,
            **self.shape._asdict(),
        }  # fmt: skip
        return json.dumps(fields).encode()


def new_secret() -> bytes:
    """Return the secret of a new upload."""
    return secrets.token_bytes(SECRET_BYTES)


def decode_note(data: bytes) -> PartsNote | None:
    """Return the note that `PartsNote.encode` made *data* of, None if this version does not understand it."""
    try:
        found = json.loads(data) if len(data) <= LARGEST_NOTE else None
        return _note(found) if isinstance(found, dict) and found.get("form") == FORM else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _note(found: dict[str, Any]) -> PartsNote | None:
    length, part_bytes = found["length"], found["part_bytes"]
    texts = [found["version"], found["source"], found["upload"]]
    secret = bytes.fromhex(found["secret"])
    if type(length) is not int or type(part_bytes) is not int or len(secret) != SECRET_BYTES:
        return None
    if not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts):
        return None
    # Versions and ids come from headers and parameters, which cannot hold other characters.
    if not (texts[0].isprintable() and texts[2].isprintable()):
        return None
    if part_bytes < 1 or not 0 < length <= MOST_PARTS * part_bytes:
        return None
    if part_bytes > max(LARGE_PART_BYTES, 4 * length // MOST_PARTS):
        return None
    shape = PartsShape(length, part_bytes, texts[0], texts[1])
    return PartsNote(secret, shape, texts[2], found["checksums"] is True)
