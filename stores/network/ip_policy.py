"""Which IP addresses connections may go to. Checked after a server's name was resolved."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

# Link-local networks, and the metadata services of clouds, which give a machine's credentials to any of its processes.
_LINK_LOCAL: Final = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",
            "fe80::/10",
            "fd00:ec2::/32",
            "fd20:ce::254/128",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
        ),
    )
)
# IPv6 addresses that hold an IPv4 address in their last 32 bits, for a gateway or for the system.
_HOLDS_IPV4: Final = tuple(map(ip_network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48")))


class IpPolicy(NamedTuple):
    """
    Which IP addresses the connections of one client may go to.

    *loopback_only*: only to this machine. *link_local*: also to link-local addresses and metadata services.
    """

    loopback_only: bool = False
    link_local: bool = False

    def refuses(self, host: str) -> str:
        """Return why a connection may not go to *host*, "" if it may or if *host* is no IP address."""
        try:
            addresses = _meant(ip_address(host.partition("%")[0]))
        except ValueError:
            return ""
        if not self.link_local and any(one in network for one in addresses for network in _LINK_LOCAL):
            return f"is at {host}, which is link-local or a cloud's metadata service"
        if self.loopback_only and not _is_loopback(addresses[0]):
            return f"is reached by plain HTTP at {host}, which is another machine"
        return ""


ANYWHERE_BUT_LINK_LOCAL: Final = IpPolicy()


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    mapped = None if isinstance(address, IPv4Address) else address.ipv4_mapped
    return (mapped or address).is_loopback


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return *address*, and the IPv4 addresses that it contains."""
    if isinstance(address, IPv4Address):
        return [address]
    inner = (
        [IPv4Address(int(address) & 0xFFFFFFFF)] if any(address in network for network in _HOLDS_IPV4) else []
    )
    others = [address.sixtofour, *(address.teredo or ())]
    return [address, *inner, *(one for one in others if one is not None)]
