"""
Interim answers: those with a status of 1xx come before the final answer and are not a success (RFC 9110, 15.2).

`http.client` and boto3 skip "100 Continue" only, and take any other interim answer for the final one.
"""

from __future__ import annotations

import http.client
from http.client import BadStatusLine, HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final

_SWITCHING_PROTOCOLS: Final = 101


class FinalResponse(HTTPResponse):
    """The final answer to a request: interim answers are skipped. The socket bounds how many bytes they have."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if found[1] == _SWITCHING_PROTOCOLS:
                raise BadStatusLine("the server switches to another protocol: 101")
            if not is_interim(found[1]):
                return found
            skip_headers(self.fp)


def is_interim(status: int) -> bool:
    """Return whether another answer follows one with this *status*."""
    return 100 <= status < 200 and status != _SWITCHING_PROTOCOLS


def skip_headers(stream: Any) -> None:
    """Read and drop the headers of an interim answer. Raises `HTTPException` where they end early or are too long."""
    limit = http.client._MAXLINE  # type: ignore[attr-defined]  # noqa: SLF001 - the limit that Python uses itself
    while (line := stream.readline(limit + 1)) not in {b"\r\n", b"\n"}:
        if not line:
            raise IncompleteRead(b"")
        if len(line) > limit:
            raise HTTPException("a header of an interim answer is too long")
