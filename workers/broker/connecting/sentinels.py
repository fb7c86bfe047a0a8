"""
Which address is the primary's: the one that more sentinels name than any other.

A sentinel may be mistaken, in a part of the network that was cut off, or lie. So one answer is not enough while others
can be had: sentinels are asked until more than half of those in the URL agree. With TLS each must show a certificate
for its name. What they name must be a host that the URL's ``allowed_hosts`` has and, with TLS, must show a certificate
for that name too. Without ``allowed_hosts``, no link-local address is taken, where clouds serve credentials.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from redis.client import Redis
from redis.exceptions import AuthenticationError, ConnectionError, RedisError
from redis.sentinel import MasterNotFoundError, Sentinel

from snapferry.stores.text.printable import printable

CONNECT_S: Final = 2.0
ANSWER_S: Final = 3.0
"""The most seconds that a sentinel is waited for."""

_PASSED_OVER_S: Final = 10.0
"""A sentinel that did not answer is not asked for this time, while others answer."""

_is_host: Final = re.compile(r"[A-Za-z0-9._:-]{1,255}").fullmatch


class PrimaryNotFound(MasterNotFoundError):
    """No address is named by more sentinels than any other. *causes* are the errors of those that did not answer."""

    def __init__(self, message: str, causes: Sequence[Exception]) -> None:
        super().__init__(message)
        self.causes = causes


class SentinelRefuses(AuthenticationError):
    """A sentinel requires a password, or refuses the one of the URL."""


class VotingSentinels(Sentinel):
    """
    The sentinels behind *clients*, each given with its name to be shown.

    redis-py's `Sentinel` believes the first that answers.
    """

    def __init__(self, clients: Sequence[tuple[str, Redis]], allowed_hosts: Sequence[str]) -> None:
        initialize: Any = super().__init__
        initialize([])
        self._named = list(clients)
        self.sentinels = [client for _, client in clients]
        self._allowed = allowed_hosts
        self._silent_until: dict[str, float] = {}

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary *service_name*. Raises `PrimaryNotFound`."""
        votes: Counter[tuple[str, int]] = Counter()
        faults: dict[str, Exception] = {}
        majority = len(self._named) // 2 + 1
        now = time.monotonic()
        for name, client in sorted(self._named, key=lambda one: self._silent_until.get(one[0], 0) > now):
            if votes and self._silent_until.get(name, 0) > now:
                break
            try:
                address = ask(client, service_name, self._allowed)
            except (RedisError, OSError) as error:
                faults[name] = error
                self._silent_until[name] = time.monotonic() + _PASSED_OVER_S
                continue
            self._silent_until.pop(name, None)
            votes[address] += 1
            if votes[address] >= majority:
                return address
        match votes.most_common(2):
            case [(address, _)]:
                return address
            case [(address, most), (_, fewer)] if most > fewer:
                return address
        raise PrimaryNotFound(_said(service_name, votes, faults), [] if votes else list(faults.values()))


def _said(service_name: str, votes: Counter[tuple[str, int]], faults: dict[str, Exception]) -> str:
    if votes:
        named = " and ".join(f"{host}:{port}" for host, port in sorted(votes))
        return f"the sentinels disagree on the primary of {service_name}: {named}"
    reasons = "; ".join(f"{name}: {str(error).rstrip('.')[:150]}" for name, error in faults.items())
    return f"no sentinel names a primary of {service_name}: {reasons}"[:600]


def ask(client: Redis, service_name: str, allowed_hosts: Sequence[str]) -> tuple[str, int]:
    """
    Return host and port of the primary that one sentinel names.

    Raises `RedisError` and OSError, also for an answer that must not be used.
    """
    try:
        execute: Any = client.execute_command
        found: Any = execute("SENTINEL GET-MASTER-ADDR-BY-NAME", service_name)
    except AuthenticationError as error:
        raise SentinelRefuses(
            "the sentinel requires a password, or refuses it; set sentinel_password, and sentinel_username if"
            " it has users, in the broker URL"
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError):
        found = ()
    if found is None:
        raise ConnectionError(f"it knows no primary of the name {service_name}")
    host, port = found if isinstance(found, tuple) and len(found) == 2 else ("", 0)
    host = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    if not _is_host(host) or not isinstance(port, int) or not 0 < port < 65536:
        raise ConnectionError("its answer cannot be read")
    if not is_allowed(host, allowed_hosts):
        raise ConnectionError(f"it names {printable(host)}, which allowed_hosts of the broker URL excludes")
    return host, port


def is_allowed(host: str, allowed_hosts: Sequence[str]) -> bool:
    """Return whether a sentinel may name *host*, an address or a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return not allowed_hosts or any(
            name.endswith(one[1:].lower()) if one.startswith("*.") else name == one.lower()
            for one in allowed_hosts
        )
    mapped = getattr(address, "ipv4_mapped", None) or address
    if not allowed_hosts:
        return not (mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified)
    return any(_within(mapped, one) for one in allowed_hosts)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
