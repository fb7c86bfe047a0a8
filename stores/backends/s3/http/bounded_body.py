"""
Limits on the length of an object that a server sends, which hold before the object's digest can be checked.

The SIZE of a manifest is advisory, and wrong for links that were followed, so it alone refuses nothing. The length
that a server announces limits how much is read. A length far above the expected one is confirmed first.
"""

from __future__ import annotations

from typing import Any

from snapferry.stores.backends.s3.sizes import MAX_OBJECT_BYTES
from snapferry.stores.runtime.oversize import far_beyond
from snapferry.stores.text.format import counted

from .errors import AnswerTooLong


def announced_too_long(length: int) -> str:
    """Return the message for an object that is announced with *length* bytes."""
    return f"the server announces an object of {counted(length, 'byte')}; no object has more than {MAX_OBJECT_BYTES}"


class BoundedBody:
    """
    The body of boto3's answer to a GET. *length* is the announced length in bytes, None if there is none.

    Without an announced length, reading stops far above *size_hint*. Raises `AnswerTooLong`.
    """

    def __init__(self, body: Any, length: object, size_hint: int) -> None:
        self._body = body
        self.length = None if length is None else int(str(length))
        if self.length is not None and not 0 <= self.length <= MAX_OBJECT_BYTES:
            self.close()
            raise AnswerTooLong(announced_too_long(self.length))
        self._left = far_beyond(size_hint) if self.length is None else MAX_OBJECT_BYTES

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, fewer only at the end."""
        chunk = self._read_some(size)
        # botocore compares the received with the announced length only in a read that returns nothing.
        while len(chunk) < size and (more := self._read_some(size - len(chunk))):
            chunk += more
        return chunk

    def read_into(self, buffer: memoryview, /) -> int:
        """Fill *buffer* with the next bytes, fewer only at the end; return their number."""
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _read_some(self, size: int) -> bytes:
        chunk: bytes = self._body.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            self.close()
            raise AnswerTooLong("the server announces no length, and sends far more than was expected")
        return chunk

    def close(self) -> None:
        """Close the connection if the body was not read to its end. May be called again."""
        self._body.close()
