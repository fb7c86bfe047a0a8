"""Open stores: the one place where a store is opened, and so the one place that asks an `AccessPolicy`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from .access import STRICT, AccessPolicy, Right
from .backend import Backend
from .errors import InvalidStoreURL
from .snapshot_store import SnapshotStore
from .urls import Opening, StoreURL, find_kind, parse_url, schemes

logger = logging.getLogger(__name__)


def open_backend(
    url: StoreURL, *rights: Right, access: AccessPolicy = STRICT, create: bool = True
) -> Backend:
    """
    Open the backend that *url* names; nothing is sent yet. *rights*, *access* and *create* as for `open_store`.

    Raises `NotAllowed`.
    """
    rights = rights or (Right.READ, Right.WRITE)
    allowed = access.check(url, *rights)
    # The path that was checked has no links. A link that is there now was not checked.
    limited = access.limits(url, *rights)
    allows = partial(_allows, access, allowed, rights) if limited and url.kind.is_tree else None
    return allowed.kind.open(allowed, Opening(create, not limited, access.ip_policy(allowed), allows))


def _allows(access: AccessPolicy, tree: StoreURL, rights: tuple[Right, ...], path: str) -> bool:
    """Return whether *access* allows the file at the absolute *path* to somebody who opens *tree*."""
    return access.allows(replace(tree, location=path), *rights)


def open_store(
    url: str | StoreURL,
    objects_url: str | StoreURL | None = None,
    *rights: Right,
    access: AccessPolicy = STRICT,
    create: bool = True,
) -> SnapshotStore:
    """
    Open the store at *url*. With *objects_url*, its objects are in that pool instead.

    *rights* are what it is opened for, reading and writing if none is given; *access* must allow them at both places.
    With *create*, the first write creates a directory that does not exist; `SnapshotStore.prepare` creates it in any
    case. Raises `InvalidStoreURL` and `NotAllowed`. Sends nothing yet: the first call that needs the store finds out
    whether it exists.
    """
    manifests = open_backend(_parsed(url), *rights, access=access, create=create)
    if objects_url is None:
        return SnapshotStore(manifests)
    return SnapshotStore(open_backend(_parsed(objects_url), *rights, access=access, create=create), manifests)


def _parsed(url: str | StoreURL) -> StoreURL:
    return parse_url(url) if isinstance(url, str) else url


def prepare(wanted: Iterable[str] = ()) -> None:
    """
    Import what opens stores of the *wanted* schemes, of all known ones if none is given.

    Processes that are forked afterwards share it. Connects to nothing. May be called again. A plug-in that cannot be
    loaded is logged: only its own URLs are of no use.
    """
    for scheme in wanted or schemes():
        try:
            kind = find_kind(scheme)
        except InvalidStoreURL as error:
            logger.warning("plug-in not loaded: %s", error)
            continue
        if kind is not None:
            kind.prepare()
