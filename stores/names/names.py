"""
The names of a store.

*whole or not at all*: a name is one key of the backend, so its record is the previous one or the new one at any moment.
*one after the other*: in a directory, writers of names exclude each other by a lock. In a bucket, a writer that expects
something writes or deletes on that condition, if the server supports it. Otherwise the last one of several writers
wins.
*nothing is trusted*: what is filed under a name is read up to a bound and must have the form of a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Final, NamedTuple

from snapferry.stores.address import SnapshotId
from snapferry.stores.backend import Backend
from snapferry.stores.errors import (
    KeyMissing,
    ManifestMissing,
    NameChanged,
    NameMissing,
    StoreError,
    StoreFault,
    StoreUnavailable,
)
from snapferry.stores.features import Conditional, ConditionalDelete, Locking, feature_of
from snapferry.stores.runtime.containment import contained
from snapferry.stores.runtime.interruption import checkpoint

from .name import LONGEST_RECORD, NAMES, Name, NameRecord, is_name, name_key, parse_record, render_record

MOST_NAMES: Final = 10_000
"""Names of one store that are listed."""

# Keys that a listing of names looks at; the others are foreign.
_MOST_KEYS: Final = 10 * MOST_NAMES


# Attempts to write on a condition: what the name is may change between the question and the write.
_ATTEMPTS: Final = 5


class Written(NamedTuple):
    """
    What a write of a name found.

    *before* is the previous record, None if there was none that can be read. *atomic*: what the writer expected held at
    the moment of the write. Otherwise it was checked just before, and a writer in between was not noticed.
    """

    before: NameRecord | None
    atomic: bool


class ListedName(NamedTuple):
    """
    A name in a listing.

    *record* is None if it cannot be read, for the reason *error*. *dangling*: the store does not have the snapshot.
    """

    name: Name
    record: NameRecord | None
    dangling: bool
    error: StoreError | None = None


class Names:
    """
    The names of snapshots that *backend* keeps. *present* returns which snapshots of some are published.

    Safe to share between threads. Every method raises what the backend raises.
    """

    def __init__(self, backend: Backend, present: Callable[[Iterable[str]], set[SnapshotId]]) -> None:
        self._backend = backend
        self._present = present

    def read(self, name: Name) -> NameRecord:
        """Return the record of *name*. Raises `NameMissing`, and `StoreFault` for anything but a record."""
        key, label = name_key(name), self._backend.label
        try:
            with (
                contained(label, name),
                self._backend.open(key, size_hint=LONGEST_RECORD) as reader,
            ):
                record = parse_record(reader.read(LONGEST_RECORD + 1))
        except KeyMissing as error:
            raise NameMissing(label, name, "no snapshot of this store has the name") from error
        if record is None:
            raise StoreFault(
                label,
                key,
                "is not the record of a name, which is one line with a snapshot id; write the name again",
            )
        return record

    def find(self, name: Name) -> NameRecord | None:
        """As `read`; None if there is no such name."""
        try:
            return self.read(name)
        except NameMissing:
            return None

    def names(self) -> list[Name]:
        """Return all names, sorted; whose they are is not asked. Raises as `listed` does."""
        names: list[Name] = []
        with contained(self._backend.label):
            for number, listed in enumerate(self._backend.keys(NAMES)):
                if number % 1000 == 0:
                    checkpoint()
                text = listed.key.removeprefix(NAMES)
                if is_name(text):
                    names.append(Name(text))
                if len(names) > MOST_NAMES or number == _MOST_KEYS:
                    raise StoreFault(
                        self._backend.label,
                        NAMES,
                        f"holds more than {MOST_NAMES:,} names; remove some of them",
                    )
        return names

    def listed(self) -> dict[Name, ListedName]:
        """
        Return all names, sorted, up to `MOST_NAMES`. Keys that are not names are ignored.

        A name that cannot be read stops no other one, unless the store is unavailable. Raises `StoreNotFound`, and
        `StoreFault` where there are more names.
        """
        names = self.names()
        workers = min(self._backend.capabilities.concurrency, len(names))
        if workers > 1:
            context = copy_context()
            with ThreadPoolExecutor(workers) as pool:
                # Only one thread at a time can enter a context.
                read = list(pool.map(lambda name: context.copy().run(self._read, name), names))
        else:
            read = [self._read(name) for name in names]
        found = {name: one for name, one in zip(names, read, strict=True) if one is not None}
        ids = {one.snapshot_id for one in found.values() if isinstance(one, NameRecord)}
        published = self._present(ids) if ids else set()
        return {
            name: ListedName(name, one, one.snapshot_id not in published)
            if isinstance(one, NameRecord)
            else ListedName(name, None, dangling=False, error=one)
            for name, one in found.items()
        }

    def by_snapshot(self) -> dict[SnapshotId, list[Name]]:
        """Return the names of each snapshot that has one, sorted; names that cannot be read are left out."""
        found: dict[SnapshotId, list[Name]] = {}
        for name, one in self.listed().items():
            if one.record is not None:
                found.setdefault(one.record.snapshot_id, []).append(name)
        return found

    def _read(self, name: Name) -> NameRecord | StoreError | None:
        try:
            return self.find(name)
        except StoreError as error:
            if error.transient:
                raise
            return error

    def write(self, name: Name, record: NameRecord, *, if_was: str | None = None) -> Written:
        """
        Give *name* to the snapshot of *record*; return the previous record, and whether *if_was* excluded others.

        The snapshot must be published here at this moment. With *if_was*, the name must be that of this snapshot, and
        with "" nobody's. This is one step with the write if the store can do that (`Written.atomic`). Raises
        `ManifestMissing` and `NameChanged`; nothing was written then. After another error the name has its previous
        record or the new one. May be called again.
        """
        if record.snapshot_id not in self._present([record.snapshot_id]):
            raise ManifestMissing(
                self._backend.label,
                record.snapshot_id,
                f"no such snapshot in this store; the name {name} was not written",
            )
        conditional = feature_of(self._backend, Conditional)
        if if_was is not None and conditional is not None and conditional.supports_conditions(NAMES):
            return self._write_if(conditional, name, record, if_was)
        with self._locked() as atomic:
            before = self._expected(name, if_was)
            if before != record:
                with contained(self._backend.label, name):
                    self._backend.write(name_key(name), render_record(record))
                    self._backend.flush()
        # The record of another writer is as good as this one: the last one wins.
        self.read(name)
        return Written(before, atomic)

    def _write_if(self, conditional: Conditional, name: Name, record: NameRecord, if_was: str) -> Written:
        for _ in range(_ATTEMPTS):
            before = self._expected(name, if_was)
            if before == record:
                return Written(before, atomic=True)
            expected = None if before is None else render_record(before)
            with contained(self._backend.label, name):
                if conditional.write_if(name_key(name), render_record(record), expected):
                    return Written(before, atomic=True)
        raise self._restless(name)

    def delete(self, name: Name, *, if_was: SnapshotId | None = None) -> bool:
        """
        Take *name* away; the snapshot stays. Does nothing where there is no such name.

        With *if_was*, raises `NameChanged` if the name is that of another snapshot or does not exist. Returns whether
        that was one step with the deletion. May be called again.
        """
        conditional = feature_of(self._backend, ConditionalDelete)
        if if_was is not None and conditional is not None and conditional.supports_conditional_delete(NAMES):
            self._delete_if(conditional, name, if_was)
            return True
        with self._locked() as atomic:
            if if_was is not None:
                self._expected(name, if_was)
            with contained(self._backend.label, name):
                self._backend.delete(name_key(name))
                self._backend.flush()
        return atomic

    def _delete_if(self, conditional: ConditionalDelete, name: Name, if_was: SnapshotId) -> None:
        for _ in range(_ATTEMPTS):
            before = self._expected(name, if_was)
            with contained(self._backend.label, name):
                if before is None or conditional.delete_if(name_key(name), render_record(before)):
                    return
        raise self._restless(name)

    def _restless(self, name: Name) -> StoreUnavailable:
        return StoreUnavailable(
            self._backend.label, name, "other writers change this name all the time; it was not changed"
        )

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Keep other writers of names away inside the block, if the store can; yield whether it does."""
        locking = feature_of(self._backend, Locking)
        if locking is None:
            yield False
            return
        with locking.lock(NAMES.removesuffix("/")) as has_it:
            yield has_it

    def _expected(self, name: Name, if_was: str | None) -> NameRecord | None:
        """Return the record of *name*. Raises `NameChanged` unless it is that of *if_was*."""
        try:
            before = self.find(name)
        except StoreFault:
            # Whatever is filed there is replaced, unless the writer expects something else.
            if if_was is not None:
                raise
            return None
        now = "" if before is None else before.snapshot_id
        if if_was is not None and now != if_was:
            raise NameChanged(
                self._backend.label,
                name,
                f"is the name of {now or 'no snapshot'}, not of {if_was or 'none'}; it was not changed",
            )
        return before
