"""Endpoints of S3 servers, normalised to the one spelling that is compared and connected to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

PORTS: Final = {"http": 80, "https": 443}
MAX_HOST: Final = 253
ANY_HOST: Final = "*"

_form = re.compile(
    r"(https?)://(\[[^\]/]*\]|[^/:\[\]]*)(?::([0-9]{1,10}))?((?:/[^\\]*)?)",
    # Without ASCII, the long s of old print is an s.
    re.IGNORECASE | re.ASCII,
).fullmatch
_label = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?").fullmatch
_number = re.compile(r"[0-9]+|0x[0-9a-f]*").fullmatch


class InvalidEndpoint(ValueError):
    """A text is not an endpoint. The message gives the reason and repeats nothing of the text."""


@dataclass(frozen=True)
class Endpoint:
    """
    Where an S3 server answers: two endpoints of one server are equal.

    *host* is a name in lower case or an IP address in its one spelling; *path* has no slash at its end.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port in {0, PORTS[self.scheme]} else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def covers(self, other: Endpoint) -> bool:
        """Return whether *other* is the same server, at the same path or below it; the host ``*`` is any server."""
        if self.host == ANY_HOST:
            return self.scheme == other.scheme
        here = (self.scheme, self.host, self.port)
        return here == (other.scheme, other.host, other.port) and is_below(other.path, self.path)


def is_below(path: str, root: str) -> bool:
    """Return whether *path* is *root* or lies below it, by whole components."""
    root = root.rstrip("/")
    return not root or path == root or path.startswith(f"{root}/")


def parse_endpoint(text: str) -> Endpoint:
    """
    Read the URL of an S3 server. Raises `InvalidEndpoint`.

    Refuses hosts that libraries could read differently: numbers that are not a plain IP address, zones,
    percent-encoding, backslashes, letters beyond ASCII.
    """
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise InvalidEndpoint("it carries credentials; use a profile instead")
    found = _form(text)
    if found is None:
        raise InvalidEndpoint("it is not http(s)://host[:port][/path]")
    if not found[2].isascii():
        # Before the letters are made small: the sign for kelvin becomes a k.
        raise InvalidEndpoint("its host is not in ASCII: give it in punycode, as in xn--...")
    scheme, host, port, path = found[1].lower(), found[2].lower(), found[3], found[4].rstrip("/")
    number = int(port) if port else PORTS[scheme]
    if not 0 < number < 65536:
        raise InvalidEndpoint("its port is not from 1 to 65535")
    if any(part in ("", ".", "..") for part in path.split("/")[1:]) or "%" in path:
        raise InvalidEndpoint("its path has an empty part, a dot part or a percent sign")
    return Endpoint(scheme, _host(host), number, path)


def parse_allowed(text: str) -> Endpoint:
    """Read an entry of an allow-list: an endpoint, or ``https://*`` for any of its scheme. Raises `InvalidEndpoint`."""
    for scheme in PORTS:
        if text == f"{scheme}://{ANY_HOST}":
            return Endpoint(scheme, ANY_HOST, 0)
    return parse_endpoint(text)


def _host(host: str) -> str:
    if host.startswith("["):
        return _ipv6(host[1:-1])
    # A trailing dot only marks the name as absolute.
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > MAX_HOST or not all(map(_label, labels)):
        raise InvalidEndpoint("its host is not a name or an IP address")
    if _number(labels[-1]):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise InvalidEndpoint("its host is a number: give an IP address as in 192.0.2.1") from None
    return host


def _ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except AddressValueError:
        raise InvalidEndpoint("its host is no IPv6 address") from None
    if address.scope_id is not None:
        raise InvalidEndpoint("its IPv6 address has a zone")
    return str(address.ipv4_mapped or address)
