"""
Which stores a process may open, with which credentials, and what it may do there.

A submitter names stores by URL, and the processes that do the job open them with their own credentials. `AccessPolicy`
is what a process allows. It is a value, made from the process's own configuration. `snapferry.stores.opening` checks it
before it opens a store, and is the only caller.

*by whole components*: ``file:///srv/store`` allows what is below that directory once all links are resolved, and
``s3://bucket/pre`` no key of ``prefix2``.
*after normalisation*: URLs and endpoints are compared as `snapferry.stores.urls` and
`snapferry.stores.network.endpoint` have parsed them.
*at the connection*: IP addresses are checked again after a name was resolved, for each connection (`IpPolicy`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from .errors import NotAllowed
from .network.endpoint import Endpoint, is_below, parse_allowed, parse_endpoint
from .network.ip_policy import IpPolicy
from .urls import StoreURL, parse_place

HELP = "see docs/security.md"


class Right(StrEnum):
    """What a store is opened for. `WRITE` includes the reading that a copy does at its destination."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


class Named(NamedTuple):
    """An endpoint and a profile that belong together in a process's own configuration."""

    endpoint: Endpoint | None
    profile: str | None


@dataclass(frozen=True)
class AccessPolicy:
    """
    What a process allows the submitters of jobs.

    *read*, *write* and *delete* are places: a URL allows what is at it and below it; None allows any place. A place
    with ``endpoint_url`` or ``profile`` allows only these there. For other URLs the endpoint and the profile must be a
    pair of *named*, or be in *endpoints* and *profiles*. Plain HTTP goes only to this machine, unless *endpoints* has
    the endpoint. *link_local* allows connections to link-local addresses and to the metadata services of clouds.
    *trusts_urls*: the user of the process names the URLs, and nothing but *link_local* is checked.

    The default allows any directory and bucket for reading and writing, no endpoint, no profile, and no deletion. A
    tree of files (`StoreKind.is_tree`) is opened only where *read* or *write* names it.
    """

    role: str = "this process"
    """The name of the process in messages."""
    read: tuple[StoreURL, ...] | None = None
    write: tuple[StoreURL, ...] | None = None
    delete: tuple[StoreURL, ...] | None = ()
    endpoints: tuple[Endpoint, ...] = ()
    profiles: frozenset[str] = frozenset()
    named: frozenset[Named] = field(default_factory=frozenset)
    link_local: bool = False
    trusts_urls: bool = False
    configured_in: str = "its snapferry.toml"
    """Where the lists of the process are set, in messages."""
    real: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)
    """The paths of local places, and where they lead."""

    def __post_init__(self) -> None:
        """Resolve the links of local places once: who can replace a place by a link later must not choose another."""
        for place in (*(self.read or ()), *(self.write or ()), *(self.delete or ())):
            if place.kind.is_local:
                self.real[place.location] = os.path.realpath(place.location)

    @property
    def unlimited(self) -> tuple[str, ...]:
        """The rights that apply to any place."""
        if self.trusts_urls:
            return tuple(map(str, Right))
        return tuple(str(right) for right in Right if self._places(right) is None)

    def limits(self, url: StoreURL, *rights: Right) -> bool:
        """Return whether one of *rights* is limited to certain places for stores of the kind of *url*."""
        return not self.trusts_urls and any(self._places(right, url) is not None for right in rights)

    def allows(self, url: StoreURL, *rights: Right) -> bool:
        """Return whether `check` allows *url*."""
        try:
            self.check(url, *rights)
        except NotAllowed:
            return False
        return True

    def check(self, url: StoreURL, *rights: Right) -> StoreURL:
        """
        Return *url* as it must be opened. Raises `NotAllowed` with the rule that does not allow it.

        Where places are limited, the returned URL of a local store has no links in its path: the path that is opened is
        the path that was compared.
        """
        self._check_address(url)
        if self.trusts_urls:
            return url
        resolved = url
        limits = [(right, places) for right in rights if (places := self._places(right, url)) is not None]
        if url.kind.is_local and limits:
            try:
                resolved = replace(url, location=os.path.realpath(url.location))
            except OSError as error:
                # For example a link that changes while it is read.
                why = f"has a path that does not resolve ({error.strerror})"
                raise self._refused(url, why, self._with_place(url, limits[0][0])) from error
        pinned = False
        for right, places in limits:
            fitting = [place for place in places if self._holds(place, resolved)]
            if not fitting:
                why = f"is not among the places that it may {_DOES[right]}"
                raise self._refused(url, why, self._with_place(url, right))
            pinned |= any(map(_brings, fitting))
        if not url.kind.is_local and not pinned:
            self._check_credentials(url)
        return resolved

    def ip_policy(self, url: StoreURL) -> IpPolicy:
        """Return which IP addresses a client for *url* may connect to."""
        endpoint = _endpoint_of(url)
        # A name such as localhost may resolve to another machine.
        here = endpoint is not None and endpoint.scheme == "http" and _is_loopback(endpoint)
        return IpPolicy(loopback_only=here and not self.trusts_urls, link_local=self.link_local)

    def to_document(self) -> dict[str, Any]:
        """Return the policy as a JSON document, for a process that this one starts."""
        return {
            "role": self.role,
            "configured_in": self.configured_in,
            **{name: _texts(getattr(self, name)) for name in ("read", "write", "delete", "endpoints")},
            "profiles": sorted(self.profiles),
            "named": [
                [str(one.endpoint) if one.endpoint else None, one.profile]
                for one in sorted(self.named, key=str)
            ],
            "real": self.real,
            "link_local": self.link_local,
            "trusts_urls": self.trusts_urls,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Return the policy of a document. Raises what a document of another form causes, and `InvalidStoreURL`."""
        fields = dict(document)
        real = {str(path): str(found) for path, found in fields.pop("real").items()}
        for name in ("read", "write", "delete"):
            texts = fields[name]
            fields[name] = None if texts is None else tuple(map(parse_place, texts))
        fields["endpoints"] = tuple(map(parse_allowed, fields["endpoints"]))
        fields["profiles"] = frozenset(fields["profiles"])
        fields["named"] = frozenset(
            Named(parse_endpoint(endpoint) if endpoint else None, profile)
            for endpoint, profile in fields["named"]
        )
        policy = cls(**fields)
        policy.real.update(real)
        return policy

    def _holds(self, place: StoreURL, url: StoreURL) -> bool:
        """Return whether *url* is at *place* or below it, and has the endpoint and profile of *place* if it has any."""
        if place.kind is not url.kind:
            return False
        if place.kind.is_local:
            return is_below(url.location, self.real[place.location])
        if place.location not in ("", url.location) or not is_below(url.prefix, place.prefix):
            return False
        return not _brings(place) or all(place.option(name) == url.option(name) for name in _CREDENTIALS)

    def _places(self, right: Right, url: StoreURL | None = None) -> tuple[StoreURL, ...] | None:
        found = {Right.READ: self.read, Right.WRITE: self.write, Right.DELETE: self.delete}[right]
        if found is None and url is not None and url.kind.is_tree:
            # A store holds what somebody put into it, a tree any file that this process can read.
            return ()
        return found

    def _check_address(self, url: StoreURL) -> None:
        """Refuse a forbidden IP address in the URL itself: not every connection is made by this process."""
        endpoint = _endpoint_of(url)
        if endpoint is None:
            return
        why = IpPolicy(link_local=self.link_local).refuses(endpoint.host)
        if why:
            raise self._refused(url, why, "set `link-local = true`")

    def _check_credentials(self, url: StoreURL) -> None:
        endpoint, profile = _endpoint_of(url), url.option("profile")
        if (endpoint, profile) == (None, None) or Named(endpoint, profile) in self.named:
            return
        if endpoint is not None and not any(one.covers(endpoint) for one in self.endpoints):
            if endpoint.scheme == "http" and not _is_loopback(endpoint):
                why = "is reached by plain HTTP, and its endpoint is not allowed"
                raise self._refused(url, why, _adding(endpoint, "endpoints"))
            known = any(one.endpoint == endpoint for one in self.named)
            other = "allowed with another profile only" if known else "not allowed"
            raise self._refused(url, f"is at an endpoint that is {other}", _adding(endpoint, "endpoints"))
        if profile is not None and profile not in self.profiles:
            why = f"names the profile {profile!r}, which is not allowed"
            raise self._refused(url, why, _adding(profile, "profiles"))

    def _with_place(self, url: StoreURL, right: Right) -> str:
        """Return what to set so that *url* may be opened with *right*, and all that may be opened now."""
        options = "&".join(
            f"{name}={quote(text, safe=':/')}" for name, text in url.options if name in _CREDENTIALS
        )
        entry = "?".join(filter(None, (str(replace(url, options=())), options)))
        if self._places(right) is not None:
            return _adding(entry, right)
        # A tree where any store is allowed. With one of the lists alone, the other one would allow nothing.
        lists = dict.fromkeys((Right.READ, Right.WRITE), _EVERYWHERE) | {right: (entry, *_EVERYWHERE)}
        return "set " + " and ".join(f"`{one} = {json.dumps(entries)}`" for one, entries in lists.items())

    def _refused(self, url: StoreURL, why: str, setting: str) -> NotAllowed:
        place = f"under [access] of {self.configured_in}"
        said = f"{self.role} does not open it: it {why}; {setting} {place}, and restart it; {HELP}"
        return NotAllowed(shown(url), "", said)


_DOES = {Right.READ: "read from", Right.WRITE: "write to", Right.DELETE: "delete manifests at"}

_CREDENTIALS = ("endpoint_url", "profile")

_EVERYWHERE = ("file:///", "s3://")
"""The places that hold every store."""

STRICT = AccessPolicy()
"""The policy where nothing is configured and no policy is given."""

TRUSTED = AccessPolicy(role="this command", read=None, write=None, delete=None, trusts_urls=True)
"""The policy of a process whose own user names all URLs on its command line."""


def shown(url: StoreURL) -> str:
    """Return *url* for messages, with its endpoint and without other parameters."""
    place = str(replace(url, options=()))
    endpoint = url.option("endpoint_url")
    return f"{place} at {endpoint}" if endpoint else place


def _adding(entry: object, name: str) -> str:
    """Return the setting that adds *entry* to the list *name*."""
    return f"add {json.dumps(str(entry))} to `{name}`"


def _brings(place: StoreURL) -> bool:
    """Return whether *place* has an endpoint or a profile of its own."""
    return any(place.option(name) for name in _CREDENTIALS)


def _endpoint_of(url: StoreURL) -> Endpoint | None:
    found = url.option("endpoint_url")
    return parse_endpoint(found) if found else None


def _is_loopback(endpoint: Endpoint) -> bool:
    if endpoint.host == "localhost" or endpoint.host.endswith(".localhost"):
        return True
    try:
        return ip_address(endpoint.host).is_loopback
    except ValueError:
        return False


def _texts(values: Iterable[object] | None) -> list[str] | None:
    return None if values is None else [str(value) for value in values]
