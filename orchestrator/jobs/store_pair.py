"""The stores of a job, from their URLs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from snapferry.orchestrator.places.local_path import expand_home, working_directory
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import StoreURL, check_on_server, parse_url
from snapferry.workers.messages import StoreRef
from snapferry.workers.settings.environment import store_options


def store_pair(
    from_url: str,
    to_url: str,
    from_objects: str | None = None,
    to_objects: str | None = None,
    *,
    server_side: bool = False,
) -> tuple[StoreRef, StoreRef]:
    """
    Return source and destination, with what the environment adds to their URLs.

    *from_objects* and *to_objects* are URLs of pools that hold the objects. Raises `InvalidStoreURL`, also where
    source and destination are the same store, and where *server_side* is asked of stores that no server has both of.
    """
    for_source, for_destination = store_options("from"), store_options("to")
    source = parse_url(from_url).with_defaults(**for_source)
    destination = parse_url(to_url).with_defaults(**for_destination)
    if source.same_place(destination):
        raise InvalidStoreURL("", str(source).split("?", 1)[0], "is both source and destination")
    pair = _reference(source, from_objects, for_source), _reference(destination, to_objects, for_destination)
    if server_side:
        check_on_server(*(reference.parsed_objects or reference.parsed for reference in pair))
    return pair


def one_store(url: str, objects: str | None = None) -> StoreRef:
    """
    Return the store of a job that has only one, with what the environment adds to its URL.

    *objects* is the URL of the pool that holds its objects. Raises `InvalidStoreURL`.
    """
    options = store_options("from")
    return _reference(parse_url(url).with_defaults(**options), objects, options)


def tree_path(path: str | os.PathLike[str]) -> str:
    """
    Return *path* with a home directory in place of ``~``, as `named_url` does it: not in an object of `pathlib`.

    Raises `InvalidStoreURL`.
    """
    return expand_home(path) if isinstance(path, str) else os.fspath(path)


def tree_url(path: str | os.PathLike[str]) -> str:
    """
    Return the URL of the directory *path*. Raises `InvalidStoreURL` for an empty path, and as `working_directory`.

    No link and no ``..`` is resolved here: as in snapdir, patterns are searched in the path that was given.
    """
    text = tree_path(path)
    if not text:
        raise InvalidStoreURL("", "", "PATH is empty")
    return f"tree://{text if text.startswith('/') else f'{working_directory()}/{text}'}"


def check_is_store(store: StoreRef, shown: str) -> None:
    """Make sure that *store*, *shown* in the message, is no directory tree. Raises `InvalidStoreURL`."""
    if store.parsed.kind.is_tree:
        raise InvalidStoreURL("", shown, "is a directory tree, not a store")


def check_differ(sources: Sequence[StoreRef], shown: Sequence[str]) -> None:
    """Make sure that no two *sources* are the same; *shown* names each. Raises `InvalidStoreURL`."""
    for number, source in enumerate(sources):
        if any(source.parsed.same_place(other.parsed) for other in sources[:number]):
            raise InvalidStoreURL("", "", f"{shown[number]} is given twice")


def _reference(url: StoreURL, objects: str | None, options: dict[str, str | None]) -> StoreRef:
    pool = str(parse_url(objects).with_defaults(**options)) if objects else None
    return StoreRef(url=str(url), objects_url=pool)
