"""The snapshot that a text means: an id, the first digits of one, a name, or the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, Protocol

from snapferry.stores.address import ADDRESS_LENGTH, SnapshotId, parse_snapshot_id
from snapferry.stores.errors import (
    AmbiguousId,
    InvalidAddress,
    InvalidName,
    ManifestMissing,
    NameMissing,
    StoreError,
)
from snapferry.stores.text.printable import subject

from .name import LATEST, MARK, Name, NameRecord, parse_name
from .names import Names

FEWEST_DIGITS: Final = 4
"""Fewer digits are a mistake more often than an id."""

CANDIDATES: Final = 5
"""Ids or names that an error lists."""

# Digits of a short id, where they tell ids apart.
_SHORT: Final = 12

# Ids near one that does not exist begin with as many digits as it.
_NEAR_DIGITS: Final = 3

_is_start = re.compile(rf"[0-9a-f]{{{FEWEST_DIGITS},{ADDRESS_LENGTH - 1}}}").fullmatch
_is_id = re.compile(rf"[0-9a-f]{{{ADDRESS_LENGTH}}}").fullmatch


class Searchable(Protocol):
    """A store in which snapshots are looked up, such as a `StreamStore`."""

    @property
    def manifests_label(self) -> str: ...

    @property
    def names(self) -> Names: ...

    def find_snapshots(self, digits: str, most: int) -> Sequence[SnapshotId]: ...

    def newest_snapshot(self) -> SnapshotId | None: ...


def full_id(text: str) -> SnapshotId | None:
    """
    Return *text* as a snapshot id; None for a text that `find_snapshot` must look up in a store.

    Raises `InvalidAddress` and `InvalidName` for a text that means nothing in any store.
    """
    if _is_id(text):
        return SnapshotId(parse_snapshot_id(text))
    if text == LATEST or _is_start(text):
        return None
    if text.endswith(MARK):
        if text != LATEST + MARK:
            parse_name(text.removesuffix(MARK))
        return None
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise InvalidAddress(
        "",
        subject(shown),
        f"is not a snapshot id: use {ADDRESS_LENGTH} lowercase hex digits, the first {FEWEST_DIGITS} or more of them, a"
        f" name with {MARK} at its end, or {LATEST}{_meant(text)}",
    )


def _meant(text: str) -> str:
    """Return what to write instead of a *text* that lacks `MARK` alone, "" if it lacks more."""
    try:
        return f"; did you mean {parse_name(text)}{MARK}?"
    except InvalidName:
        return ""


def find_snapshot(store: Searchable, text: str) -> SnapshotId:
    """
    Return the id of the snapshot of *store* that *text* means.

    A full id is returned as it is; nothing is asked. Its first digits, at least `FEWEST_DIGITS`, mean the only snapshot
    published in *store* whose id begins with them; a name followed by `MARK` the snapshot that has it; `LATEST`, also
    with `MARK`, the newest. Raises `InvalidAddress`, `InvalidName`, `AmbiguousId`, `ManifestMissing`, `NameMissing`,
    `StoreFault` for a name that cannot be read, and what the store raises.
    """
    found = full_id(text)
    if found is not None:
        return found
    if text.removesuffix(MARK) == LATEST:
        return _newest(store)
    if text.endswith(MARK):
        return read_name(store, parse_name(text.removesuffix(MARK))).snapshot_id
    return _beginning(store, text)


def short_ids(ids: Iterable[SnapshotId], digits: int = _SHORT) -> dict[SnapshotId, str]:
    """Return the shortest beginning of each of *ids* that no other one has, at least *digits* long; sorted."""
    ordered = sorted(set(ids))
    needed = dict.fromkeys(ordered, digits)
    for one, other in pairwise(ordered):
        apart = 1 + next(at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        needed[one], needed[other] = max(needed[one], apart), max(needed[other], apart)
    return {each: each[:length] for each, length in needed.items()}


def _newest(store: Searchable) -> SnapshotId:
    found = store.newest_snapshot()
    if found is None:
        raise ManifestMissing(store.manifests_label, LATEST, "there are no snapshots in this store")
    return found


def read_name(store: Searchable, name: Name) -> NameRecord:
    """
    Return the record of *name* in *store*.

    Raises `NameMissing`, which lists the names that the store has, and what the store raises.
    """
    try:
        return store.names.read(name)
    except NameMissing as error:
        raise NameMissing(error.store, f"{name}{MARK}", f"{error.detail}{_known(store)}") from error


def _known(store: Searchable) -> str:
    """Return the names of *store* in words, "" if they cannot be listed: the name itself was looked for."""
    try:
        known = [f"{each}{MARK}" for each in store.names.names()]
    except StoreError:
        return ""
    return f"; its names are {_listed(known)}" if known else "; it has no names"


def _beginning(store: Searchable, digits: str) -> SnapshotId:
    found = store.find_snapshots(digits, CANDIDATES + 1)
    if len(found) == 1:
        return found[0]
    if found:
        count = f"more than {CANDIDATES}" if len(found) > CANDIDATES else str(len(found))
        detail = f"{count} snapshot ids begin with it: {_listed(short_ids(found).values())}; use more digits"
        raise AmbiguousId(store.manifests_label, digits, detail)
    near = store.find_snapshots(digits[:_NEAR_DIGITS], CANDIDATES + 1)
    listed = (
        f"; ids that begin with {digits[:_NEAR_DIGITS]} are {_listed(short_ids(near).values())}"
        if near
        else "; snapferry ls lists its ids"
    )
    raise ManifestMissing(
        store.manifests_label, digits, f"no snapshot id in this store begins with it{listed}"
    )


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    return ", ".join(found[:CANDIDATES]) + (", ..." if len(found) > CANDIDATES else "")
