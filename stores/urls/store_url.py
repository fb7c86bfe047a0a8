"""
A store's URL as a value, and the kinds of stores that URLs name.

Nothing here opens a store or imports a client library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from snapferry.stores.backend import Backend
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy

# Room for the names of objects, manifests and temporary files below the root of a store.
MAX_PATH_BYTES: Final = 3900

# Control characters, line ends of every kind, and characters that make a terminal show a text in another order.
unprintable = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class StoreURL:
    """
    A store's URL, parsed and normalised: two URLs of one place are equal.

    *location* is the absolute path of a directory, or a bucket. *prefix* has no slash at its ends. *options* are the
    query parameters, sorted by name. A URL carries no secret.
    """

    kind: StoreKind
    location: str
    prefix: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.location.startswith("/"):
            return f"{self.scheme}://{self.location}"
        query = f"?{urlencode(self.options)}" if self.options else ""
        path = f"/{self.prefix}" if self.prefix else ""
        return f"{self.scheme}://{self.location}{path}{query}"

    @property
    def scheme(self) -> str:
        """The scheme of its kind of store."""
        return self.kind.scheme

    def option(self, name: str) -> str | None:
        """Return the query parameter *name*, None where the URL has none."""
        return dict(self.options).get(name)

    def with_defaults(self, **options: str | None) -> StoreURL:
        """Return the URL with those *options* added that its kind takes and that it does not set itself."""
        given = {name: value for name, value in options.items() if value and name in self.kind.parameters}
        return self.kind.add_options(self, given) if given else self

    def same_place(self, other: StoreURL) -> bool:
        """Return whether both name one place, as far as their texts and the links on this machine tell."""
        if self.kind is other.kind and self.kind.is_local:
            # A path that does not resolve (it may change meanwhile) is compared as a text.
            with suppress(OSError):
                return os.path.realpath(self.location) == os.path.realpath(other.location)
        here = (self.kind, self.location, self.prefix, self.option("endpoint_url"))
        return here == (other.kind, other.location, other.prefix, other.option("endpoint_url"))


@dataclass(frozen=True)
class Opening:
    """
    How a store is opened.

    *create*: the first write creates a directory that does not exist. *follow_links*: symbolic links on the path to a
    local store are followed. *ip_policy*: the addresses that connections may go to. *allows* tells of an absolute path
    whether a tree's files there may be opened as well; None: all paths.
    """

    create: bool = True
    follow_links: bool = True
    ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL
    allows: Callable[[str], bool] | None = None


def parse_path(kind: StoreKind, rest: str) -> StoreURL:
    """
    Return the URL whose text after ``scheme://`` is *rest*: an absolute path, maybe after ``localhost``.

    Paths are taken literally, as in snapdir: ``%20`` is three characters. Raises `InvalidStoreURL`.
    """
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise InvalidStoreURL(
            "", redact(f"{kind.scheme}://{rest}"), f"needs an absolute path, as in {kind.scheme}:///srv/store"
        )
    return StoreURL(kind, _normalised("/" + path))


def take_no_options(url: StoreURL, options: Mapping[str, str]) -> StoreURL:
    """Return *url*: its kind of store has no options."""
    return url


def no_server(source: StoreURL, destination: StoreURL) -> str:
    """Return why no server copies between the two: their kind of store has none."""
    return "only servers of S3 stores copy by themselves"


def prepare_nothing() -> None:
    """Do nothing: the kind of store needs no preparation."""


@dataclass(frozen=True, eq=False)
class StoreKind:
    """
    What there is to know about a kind of store. One value for each scheme; plug-ins bring theirs (`registry`).

    *open* returns the backend of a URL. It sends nothing yet. It may import a client library, which nothing else here
    does.
    *parse* reads the text after ``scheme://``. Raises `InvalidStoreURL`, whose text repeats no secret.
    *is_local*: `StoreURL.location` is a path on this machine. An allow-list then compares resolved paths, and a path
    that does not exist may be a mount that is missing.
    *is_tree*: it is a tree of files, not a store. A process opens it only where its own configuration names the place.
    *is_metered*: a provider charges for each request, so default request limits and prices apply.
    *parameters* are the options that a URL may have; *add_options* returns a URL with more of them, checked.
    *why_not_on_server* returns why the server of two stores of this kind cannot copy from the first to the second by
    itself, as far as their URLs tell; "" if it may.
    *prepare* imports what `open` needs and reads what its clients are made from, before a process forks. Connects to
    nothing. May be called again.
    """

    scheme: str
    open: Callable[[StoreURL, Opening], Backend]
    parse: Callable[[StoreKind, str], StoreURL] = parse_path
    is_local: bool = False
    is_tree: bool = False
    is_metered: bool = False
    parameters: tuple[str, ...] = ()
    add_options: Callable[[StoreURL, Mapping[str, str]], StoreURL] = take_no_options
    why_not_on_server: Callable[[StoreURL, StoreURL], str] = no_server
    prepare: Callable[[], None] = prepare_nothing


def check_on_server(source: StoreURL, destination: StoreURL) -> None:
    """Make sure that one server may copy from *source* to *destination*. Raises `InvalidStoreURL` where none can."""
    why_not = destination.kind.why_not_on_server(source, destination)
    if why_not:
        shown = " to ".join(str(url).partition("?")[0] for url in (source, destination))
        raise InvalidStoreURL("", "", f"no server can copy from {shown} by itself: {why_not}")


def _normalised(path: str) -> str:
    """
    Return *path* in one spelling, without touching a file system.

    A ``..`` stays, except at the very beginning: where it leads depends on links.
    """
    if len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidStoreURL("", "the path of a store", f"has more than {MAX_PATH_BYTES:,} bytes")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        del parts[0]
    return "/" + "/".join(parts)


def redact(text: str) -> str:
    """
    Return *text* without user, password and query parameters, fit to be shown.

    A password may hold any character, ``/``, ``?`` and ``@`` too. Where a text seems to begin with a user, rather too
    much is left out than too little.
    """
    scheme = _scheme.match(text)
    head = scheme.group() if scheme else ""
    place, _, query = text[len(head) :].partition("?")
    authority = place.partition("/")[0]
    if ":" in authority and "@" in query:
        return f"{head}..."
    if ":" in authority or "@" in authority:
        place = place.rpartition("@")[2]
    return head + place
