"""
The allow-list: which stores jobs may use, from `[access]` in `snapferry.toml` and from the environment.

    [access]
    read = ["live", "s3://archive/2026", "file:///srv/stores"]     # names of stores, or URL prefixes
    write = ["backup"]
    delete = ["backup"]                     # default: the destinations of mirrors with delete = true
    endpoints = ["https://s3.example"]      # for URLs with an endpoint that no entry above has
    profiles = ["archive"]

A variable such as ``SNAPFERRY_ACCESS_READ`` replaces the list of its name. Without read and write, every directory and
bucket is allowed. With read or write, only the stores in the two lists are allowed.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from snapferry.stores.access import TRUSTED, AccessPolicy, Named
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.network.endpoint import Endpoint, InvalidEndpoint, parse_allowed, parse_endpoint
from snapferry.stores.urls import StoreURL, parse_place, parse_url, redact

from .config_file import Access, Config, read_config
from .environment import CONFIG_HERE, InvalidSettings, Settings, named_endpoints

LISTS: Final = ("read", "write", "delete", "endpoints", "profiles")

__all__ = ["TRUSTED", "access_policy"]


def access_policy(settings: Settings, role: str) -> AccessPolicy:
    """
    Return the allow-list of this process. *role* is its name in messages, such as "the worker".

    Reads the configuration file. Raises `InvalidSettings`.
    """
    config = read_config(settings.config) if settings.config else Config()
    table = config.access
    chosen = {name: _chosen(settings, table, name) for name in LISTS}
    read, write, delete = (_places(chosen[name], config, name) for name in ("read", "write", "delete"))
    if read is not None or write is not None:
        read, write = read or (), write or ()
    if delete is None:
        delete = tuple(parse_url(config.url(mirror.to)) for mirror in config.mirror if mirror.delete)
    link_local = settings.access_link_local
    return AccessPolicy(
        role=f"{role} on {socket.gethostname()}",
        configured_in=_place_of(settings),
        read=read,
        write=write,
        delete=delete,
        endpoints=tuple(_endpoint(text) for text in chosen["endpoints"] or ()),
        profiles=frozenset(chosen["profiles"] or ()),
        named=_named(config),
        link_local=table.link_local if link_local is None else link_local,
    )


def _place_of(settings: Settings) -> str:
    """Return where the lists of this process are set, for messages."""
    # Without a file, it is looked for where the process was started.
    file = os.path.abspath(settings.config or CONFIG_HERE)
    variables = [
        f"SNAPFERRY_ACCESS_{name.upper()}"
        for name in LISTS
        if getattr(settings, f"access_{name}") is not None
    ]
    return (
        f"{file}, or in {' and '.join(variables)}, which {'replace' if variables[1:] else 'replaces'} it"
        if variables
        else file
    )


def _chosen(settings: Settings, table: Access, name: str) -> tuple[str, ...] | None:
    found: tuple[str, ...] | None = getattr(settings, f"access_{name}")
    return getattr(table, name) if found is None else found


def _places(entries: tuple[str, ...] | None, config: Config, name: str) -> tuple[StoreURL, ...] | None:
    if entries is None:
        return None
    try:
        return tuple(parse_place(config.url(entry)) for entry in entries)
    except InvalidStoreURL as error:
        raise InvalidSettings(f"access.{name} (SNAPFERRY_ACCESS_{name.upper()}): {error}") from None


def _endpoint(text: str) -> Endpoint:
    try:
        return parse_allowed(text)
    except InvalidEndpoint as error:
        where = "access.endpoints (SNAPFERRY_ACCESS_ENDPOINTS)"
        raise InvalidSettings(f"{where}: {redact(text)!r}: {error}") from None


def _named(config: Config) -> frozenset[Named]:
    """Return the pairs of endpoint and profile of all stores in *config*, and of the environment."""
    stores = [
        *config.stores.values(),
        *(store for one in config.scheduled for store in one.stores),
    ]
    urls = [parse_url(config.url(store)) for store in stores]
    pairs = {(url.option("endpoint_url"), url.option("profile")) for url in urls} | named_endpoints()
    found = set()
    for endpoint, profile in pairs:
        try:
            found.add(Named(parse_endpoint(endpoint) if endpoint else None, profile))
        except InvalidEndpoint:
            # boto3's own variables may hold anything. Opening a store reports what is wrong with them.
            continue
    return frozenset(found)
