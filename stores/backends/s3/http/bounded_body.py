"""
How long an object may be that a server sends, before its digest can say whether it is the right one.

The SIZE of a manifest is advisory and wrong for links that were followed, so it refuses nothing alone. What the
server announces bounds what is read; an announcement that is far beyond the expectation is confirmed first.
"""

from __future__ import annotations

from typing import Any

from snapferry.stores.backends.s3.multipart import MAX_OBJECT_BYTES
from snapferry.stores.runtime.oversize import far_beyond

from .sockets import AnswerTooLong


def announced_too_long(length: int) -> str:
    """Return the text for an object that claims to have *length* bytes."""
    return f"the server announces an object of {length} bytes; no object has more than {MAX_OBJECT_BYTES}"


class BoundedBody:
    """
    The body of boto3's answer to a GET. *length* is what was announced, None if nothing was.

    Where nothing was announced, reading stops far beyond *size_hint*. Raises `AnswerTooLong`.
    """

    def __init__(self, body: Any, length: object, size_hint: int) -> None:
        self._body = body
        self.length = None if length is None else int(str(length))
        if self.length is not None and not 0 <= self.length <= MAX_OBJECT_BYTES:
            self.close()
            raise AnswerTooLong(announced_too_long(self.length))
        self._left = far_beyond(size_hint) if self.length is None else MAX_OBJECT_BYTES

    def read(self, size: int) -> bytes:
        """Return what boto3's body does for *size*."""
        chunk: bytes = self._body.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            self.close()
            raise AnswerTooLong("the server announces no length, and sends far more than was expected")
        return chunk

    def close(self) -> None:
        """Let go of the connection. May be called again."""
        self._body.close()
