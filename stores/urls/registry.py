"""
The kinds of stores: built in, and from plug-ins.

A plug-in is a distribution with an entry point in the group ``snapferry.backends``, whose name is the scheme and whose
value is a `StoreKind`. It is imported when a URL with its scheme is read for the first time. docs/plugins.md has an
example.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.runtime.containment import in_words

from .store_url import StoreKind

if TYPE_CHECKING:
    # As in `_plug_ins`.
    from importlib.metadata import EntryPoint

GROUP: Final = "snapferry.backends"

# Named as an entry point would be, so that reading a URL imports the code of its own kind of store alone.
_BUILT_IN: Final = {
    "file": "snapferry.stores.backends.directory.kind",
    "s3": "snapferry.stores.backends.s3.kind",
}

# Trees of files: not stores, so no list of stores has them.
_TREES: Final = {"tree": "snapferry.stores.backends.tree.kind"}

_kinds: dict[str, StoreKind] = {}


def register(kind: StoreKind) -> None:
    """Add *kind* in this process and those forked from it. May be called again."""
    _kinds[kind.scheme] = kind


def schemes() -> list[str]:
    """Return the schemes of all kinds of stores: built in, registered, and of plug-ins."""
    return [name for name in dict.fromkeys([*_BUILT_IN, *_kinds, *_plug_ins()]) if name not in _TREES]


def find_kind(scheme: str) -> StoreKind | None:
    """
    Return the kind of store with this *scheme*, None if there is none.

    Raises `InvalidStoreURL` where its plug-in cannot be loaded.
    """
    found = _kinds.get(scheme)
    if found is None and (module := (_BUILT_IN | _TREES).get(scheme)) is not None:
        found = import_module(module).KIND
    elif found is None and (entry := _plug_ins().get(scheme)) is not None:
        found = _load(entry)
    if found is not None:
        _kinds[scheme] = found
    return found


def kind_of(text: str) -> StoreKind | None:
    """Return the kind of store that *text*, a URL or a backend's label, begins with. None if there is none."""
    return find_kind(text.partition("://")[0])


def is_local(text: str) -> bool:
    """Return whether *text*, a URL or a label, names a store on this machine. Text of no known kind is a path."""
    kind = kind_of(text)
    return kind is None or kind.is_local


def is_metered(text: str) -> bool:
    """Return whether a provider charges for requests to the store that *text*, a URL or a label, names."""
    kind = kind_of(text)
    return kind is not None and kind.is_metered


@cache
def _plug_ins() -> dict[str, EntryPoint]:
    # Importing this takes longer than all of the rest, and most processes read no URL of a plug-in.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> StoreKind:
    try:
        found = entry.load()
    except Exception as error:
        raise InvalidStoreURL(
            "",
            f"{entry.name}://",
            f"belongs to the plug-in {entry.value}, which cannot be loaded: {in_words(error)}",
        ) from error
    if not isinstance(found, StoreKind) or found.scheme != entry.name:
        raise InvalidStoreURL(
            "",
            f"{entry.name}://",
            f"belongs to the plug-in {entry.value}, which is not a StoreKind of that scheme",
        )
    return found
