"""Access to the pages: allowed host names, the login, and security headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

# No inline scripts or styles, nothing from other sites, and not in a frame.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

# What differs in a dashboard with forms that change something. Without a referrer browsers name no origin of a form
# either; this way other sites still get none.
FORM_HEADERS: Final = {"Referrer-Policy": "same-origin"}

# Seconds before a wrong password is answered, and how many of one address may wait at once.
WRONG_PASSWORD_DELAY_S: Final = 1.0
WRONG_PASSWORDS_AT_ONCE: Final = 8

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def headers(*, forms: bool) -> dict[str, str]:
    """Return the headers of every answer; *forms*: pages may have forms."""
    return HEADERS | FORM_HEADERS if forms else dict(HEADERS)


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach *address*, a name or an IP address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def allowed_hosts(address: str, named: tuple[str, ...]) -> frozenset[str] | None:
    """
    Return the host names that requests may use; None: any.

    On loopback, a foreign web page could point a host name of its own at this machine and read the answers in the
    visitor's browser (DNS rebinding). So only names of this machine are allowed there, and those *named* by the
    operator.
    """
    if is_loopback(address):
        return LOOPBACK_HOSTS | {address} | {name.lower() for name in named}
    return frozenset(name.lower() for name in named) or None


def host_of(header: str) -> str:
    """Return the host of a Host header without its port, in lower case; "" for an invalid header."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def knows_password(header: str, login: tuple[str, str]) -> bool:
    """Return whether an Authorization header has the user and password; wrong ones take as long as the right ones."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        decoded = base64.b64decode(given.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(decoded, ":".join(login).encode(errors="surrogateescape"))


class WrongPasswords:
    """
    Slows down the guessing of passwords to `WRONG_PASSWORDS_AT_ONCE` guesses per `WRONG_PASSWORD_DELAY_S` seconds.

    Guesses are counted by address while their answers wait, so no state has to expire. Behind a proxy all visitors have
    the address of the proxy: while one visitor guesses, the others are refused too.
    """

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()

    def too_many(self, address: str) -> bool:
        """Return whether a password from *address* is refused unread."""
        return self._waiting[address] >= WRONG_PASSWORDS_AT_ONCE

    async def wait(self, address: str) -> None:
        """Delay the answer to a wrong password from *address*."""
        self._waiting[address] += 1
        try:
            await asyncio.sleep(WRONG_PASSWORD_DELAY_S)
        finally:
            self._waiting[address] -= 1
            # Addresses without waiting answers are dropped.
            self._waiting += Counter()
