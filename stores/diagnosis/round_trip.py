"""
The probe of a store: a few bytes that are written, read, listed and deleted.

*never an object*: a probe's key is in a folder of its own, whose name cannot be a part of an address and sorts before
all addresses.
*leaves nothing*: a probe is deleted whatever happens. A probe of a killed process is deleted by the next check, if its
name shows that its writer is dead, or after an hour.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from snapferry.stores.backend import Backend
from snapferry.stores.errors import StoreError, StoreFull
from snapferry.stores.runtime.liveness import identity, is_dead

from .findings import Finding, Level

logger = logging.getLogger(__name__)

FOLDER: Final = ".snapferry-probe/"
DATA: Final = b"snapferry doctor was here; this may be deleted\n"
STALE_AFTER_S: Final = 3600.0

_numbers = itertools.count()
# Temporary files have names of the same form after a prefix of their own.
_named = re.compile(r"(?:\.tmp-|\.snapferry-probe-)?([^-]+-\d+-[^-]+)-\d+").fullmatch


def new_probe(folder: str) -> str:
    """Return a key in *folder* that no other process uses."""
    return f"{folder}{identity()}-{next(_numbers)}"


def is_stale(key: str, modified: float) -> bool:
    """
    Return whether the process that wrote *key*, at *modified* in seconds since the epoch, will not delete it itself.

    A key with another form of name is not stale: a server may keep parts of an upload beside its key.
    """
    found = _named(key.rpartition("/")[2])
    return found is not None and (is_dead(found[1]) or time.time() - modified > STALE_AFTER_S)


def sweep(backend: Backend, folder: str) -> None:
    """Delete stale probes in *folder*. Never raises; a probe that cannot be deleted stays."""
    with suppress(StoreError):
        for key, _, modified in list(backend.keys(folder)):
            if is_stale(key, modified):
                with suppress(StoreError):
                    backend.delete(key)


def round_trip(backend: Backend, folder: str, what: str) -> Iterator[Finding]:
    """
    Write, read, list and delete a probe in *folder*, which holds *what*; yield the findings.

    Ends at the first step that fails. The probe is deleted in any case, even if the caller stops early.
    """
    sweep(backend, folder)
    key = new_probe(folder)
    gone = False
    try:
        try:
            backend.write(key, DATA)
        except StoreError as error:
            yield refused("store.write", f"{what} cannot be written", error)
            return
        try:
            with backend.open(key) as reader:
                back = reader.read(len(DATA) + 1)
        except StoreError as error:
            yield refused("store.read", f"{what} can be written but not read back", error)
            return
        if back != DATA:
            yield Finding(
                Level.ERROR,
                "store.read",
                f"{what}: the bytes read back differ from those written",
                "do not copy to this store; look for its fault, or for a cache or proxy in between",
            )
            return
        try:
            listed = key in {found.key for found in backend.keys(folder)}
        except StoreError as error:
            yield refused("store.list", f"{what} can be written and read, but not listed", error)
            return
        if not listed:
            yield Finding(
                Level.ERROR,
                "store.list",
                f"{what}: an object that was just written is not listed",
                "snapferry needs listings that are consistent",
            )
            return
        try:
            backend.delete(key)
            gone = backend.size(key) is None
        except StoreError as error:
            yield Finding(
                Level.WARNING,
                "store.delete",
                f"{what} cannot be deleted, so a probe stays at {key}: {error.detail}",
                "delete it by hand; without that right --delete cannot work",
            )
            return
        yield Finding(Level.OK, "store.write", f"{what} can be written, read, listed and deleted")
    finally:
        if not gone:
            with suppress(StoreError):
                backend.delete(key)


def refused(check: str, what: str, error: StoreError) -> Finding:
    """Return the finding for a step that failed with *error*; *what* names the step."""
    advice = (
        "free some space, or raise the quota"
        if isinstance(error, StoreFull)
        else "give the account that workers run as, or their credentials, this right"
        if type(error).__name__ == "AccessDenied"
        else "check the log of the store"
    )
    return Finding(Level.ERROR, check, f"{what}: {error.detail}", advice)
