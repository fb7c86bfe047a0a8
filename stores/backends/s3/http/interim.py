"""
Which of a server's answers to a request is the last: those with a status of 1xx come before it, and are no success.

`http.client` and boto3 pass over "100 Continue" alone, and take any other for the answer.
"""

from __future__ import annotations

import http.client
from http.client import BadStatusLine, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final

_SWITCHING: Final = 101


class LastWord(HTTPResponse):
    """An answer as `http.client` reads it; those that come before it are passed over. The socket bounds their bytes."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            said: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if said[1] == _SWITCHING:
                raise BadStatusLine("the server speaks another protocol from here on: 101")
            if not is_interim(said[1]):
                return said
            skip_headers(self.fp)


def is_interim(status: int) -> bool:
    """Return whether an answer with this *status* is followed by another one."""
    return 100 <= status < 200 and status != _SWITCHING


def skip_headers(incoming: Any) -> None:
    """Read the headers of an interim answer and drop them. Raises `HTTPException` where they break off."""
    while (line := incoming.readline(http.client._MAXLINE + 1)) not in {b"\r\n", b"\n"}:  # type: ignore[attr-defined]
        if not line:
            raise IncompleteRead(b"")
        if len(line) > http.client._MAXLINE:  # type: ignore[attr-defined]
            raise HTTPException("a header of an interim answer is too long")
