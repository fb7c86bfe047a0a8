"""Whether a request that changes something comes from a page of this dashboard; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from snapferry.orchestrator.dashboard.access import host_of

ELSEWHERE: Final = "it comes from a page of another site"
UNKNOWN: Final = "the browser does not tell which page sent it"

PROXY_HEADERS: Final = ("Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip")


def foreign(headers: Mapping[str, str], named: Collection[str]) -> str:
    """
    Return why a request is not of a page of this dashboard, "" if it is.

    Browsers set ``Origin`` and, over TLS or on loopback, ``Sec-Fetch-Site``; no page can change them. Other ports of
    the same host are other sites here, although browsers send them the same cookies. *named* are host names that the
    operator gave: a proxy may replace the Host header.
    """
    site, origin, host = headers.get("Sec-Fetch-Site"), headers.get("Origin"), headers.get("Host", "").lower()
    if site not in (None, "same-origin"):
        return ELSEWHERE
    if origin is None:
        return "" if site else UNKNOWN
    try:
        parts = urlsplit(origin.lower())
        name = parts.hostname or ""
    except ValueError:
        return ELSEWHERE
    if parts.scheme not in ("http", "https") or not name or "@" in parts.netloc:
        return ELSEWHERE
    if site:
        # The browser has compared the ports. A proxy may leave them out of the Host header.
        return "" if name == host_of(host) or name in named else ELSEWHERE
    return "" if parts.netloc == host or parts.netloc in named else ELSEWHERE


def came_through_proxy(headers: Mapping[str, str]) -> bool:
    """Return whether a proxy says that it sent the request for somebody else."""
    return any(name in headers for name in PROXY_HEADERS)
