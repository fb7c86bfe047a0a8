"""What each action asks of a job, from texts that name stores, snapshots and directories."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final, TypedDict, Unpack

from snapferry.orchestrator.jobs import check_differ, check_is_store, one_store, store_pair, tree_url
from snapferry.orchestrator.places.named_store import named_url
from snapferry.orchestrator.planning.trees.apart import check_apart, check_pushable
from snapferry.stores.access import AccessPolicy, Right
from snapferry.stores.address import SnapshotId
from snapferry.stores.backends.tree.exclude import excluder
from snapferry.stores.names.lookup import find_snapshot, full_id
from snapferry.stores.names.name import parse_name
from snapferry.stores.opening import open_store
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.faults import one_line
from snapferry.workers.messages import (
    Action,
    Budget,
    JobSpec,
    Limits,
    Order,
    Prune,
    StoreRef,
    TreeOptions,
    VerifyOptions,
)
from snapferry.workers.queues import Priority
from snapferry.workers.settings.environment import Settings

Place = str | os.PathLike[str]
"""A store: a URL, a path with a slash, or a name in `snapferry.toml`. An object of `pathlib` is a path."""

Places = Place | Iterable[Place]
"""One or several stores."""

Patterns = str | Iterable[str]
"""One or several regular expressions."""

Ids = str | Iterable[str] | None
"""Snapshots: one or several ids, first digits of ids, or names such as ``nightly@``; None for all of the store."""

# As str(uuid.uuid4()) writes it. JSON documents, traces and their readers rely on it.
_is_uuid: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class JobOptions(TypedDict, total=False):
    """
    Options of every job.

    *patience* is in seconds. A *dry_run* changes nothing; `Job.estimate` has what the job would do. *job_id* is a UUID,
    by default a new one: submitting the same request with the same id again returns the same job.
    """

    job_id: str
    limits: Limits
    patience: float
    priority: Priority
    queue: str
    dry_run: bool


class SyncOptions(JobOptions, total=False):
    """Options of a copy: see ``snapferry sync --help``. *prune* is ``--delete``."""

    prune: Prune
    checksum: bool
    server_side: bool
    trust_manifest: bool
    names: bool
    allow_empty_source: bool
    order: Order
    budget: Budget


class Requests:
    """
    Makes the requests for the jobs of a process with these *settings*.

    *access* is what the process may open to look up ids that are not given in full. All methods raise
    `InvalidStoreURL`, other `StoreError` if a snapshot cannot be found, `InvalidSettings`, and ValueError for options
    that are out of range or exclude each other. They submit nothing.
    """

    def __init__(self, settings: Settings, access: AccessPolicy) -> None:
        self._settings = settings
        self._access = access

    def sync(
        self,
        source: Place,
        destination: Place,
        snapshots: Ids,
        from_objects: Place | None,
        to_objects: Place | None,
        **options: Unpack[SyncOptions],
    ) -> JobSpec:
        """Return the request to copy *snapshots*."""
        pools = self._url(from_objects), self._url(to_objects)
        server_side = options.get("server_side", False)
        pair = store_pair(self._named(source), self._named(destination), *pools, server_side=server_side)
        return _spec(*pair, self._ids(pair[0], snapshots), **options)

    def push(
        self,
        path: Place,
        destination: Place,
        tag: str,
        exclude: Patterns,
        *,
        follow: bool,
        **options: Unpack[JobOptions],
    ) -> JobSpec:
        """Return the request to make a snapshot of the directory *path*."""
        patterns = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        excluder(patterns)
        with one_line():
            tree = TreeOptions(exclude=patterns, follow=follow)
        pair = store_pair(tree_url(path), self._named(destination))
        check_is_store(pair[1], os.fspath(destination))
        check_pushable(*pair)
        return _spec(
            *pair,
            None,
            action=Action.PUSH,
            tag=parse_name(tag) if tag else "",
            tree=tree,
            **options,
        )

    def pull(
        self,
        source: Place,
        snapshot: str,
        path: Place,
        *,
        delete: bool,
        linked: bool,
        **options: Unpack[JobOptions],
    ) -> JobSpec:
        """Return the request to write the files of *snapshot* into the directory *path*."""
        if not isinstance(snapshot, str):
            # ValueError, as for every other wrong argument.
            raise ValueError("pull needs one snapshot: an id, its first digits, a name with @, or latest")  # noqa: TRY004
        store, tree = store_pair(self._named(source), tree_url(path))
        check_apart(store, tree)
        ids = self._ids(store, snapshot)
        with one_line():
            tree_options = TreeOptions(delete=delete, linked=linked)
        return _spec(store, tree, ids, action=Action.PULL, tree=tree_options, **options)

    def verify(
        self, store: Place, snapshots: Ids, verify: VerifyOptions, **options: Unpack[JobOptions]
    ) -> JobSpec:
        """Return the request to read the objects of *snapshots* again."""
        found = one_store(self._named(store))
        return _spec(
            found, found, self._ids(found, snapshots), action=Action.VERIFY, verify=verify, **options
        )

    def heal(self, store: Place, sources: Places, snapshots: Ids, **options: Unpack[JobOptions]) -> JobSpec:
        """Return the request to replace wrong objects of *store* by those of *sources*. ValueError without sources."""
        url = self._named(store)
        several = [sources] if isinstance(sources, str | os.PathLike) else sources
        urls = [self._named(source) for source in several]
        if not urls:
            raise ValueError("heal needs at least one source")
        pairs = [store_pair(source, url) for source in urls]
        first, *more = (source for source, _ in pairs)
        check_differ([first, *more], [source.partition("?")[0] for source in urls])
        healed = pairs[0][1]
        ids = self._ids(healed, snapshots)
        return _spec(first, healed, ids, action=Action.HEAL, more_sources=tuple(more), **options)

    def _named(self, place: Place) -> str:
        return named_url(self._settings, place)

    def _url(self, place: Place | None) -> str | None:
        return None if place is None else self._named(place)

    def _ids(self, store: StoreRef, snapshots: Ids) -> list[SnapshotId] | None:
        if snapshots is None:
            return None
        texts = [snapshots] if isinstance(snapshots, str) else snapshots
        return list(self._found(store, texts))

    def _found(self, store: StoreRef, texts: Iterable[str]) -> Iterator[SnapshotId]:
        @cache
        def opened() -> StreamStore:
            return open_store(
                store.parsed, store.parsed_objects, Right.READ, access=self._access, create=False
            )

        for text in texts:
            yield full_id(text) or find_snapshot(opened(), text)


def _spec(source: StoreRef, destination: StoreRef, ids: Iterable[str] | None, **fields: Any) -> JobSpec:
    """Return the request with these *fields*. ValueError for a wrong one."""
    if "job_id" in fields and not _is_uuid(str(fields["job_id"])):
        raise ValueError(
            f"job_id must be a UUID, as str(uuid.uuid4()) makes it, and not {fields['job_id']!r}"
        )
    with one_line():
        return JobSpec.of(source, destination, ids, **fields)
