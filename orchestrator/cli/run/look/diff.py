"""Show what differs between two snapshots or two stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeVar

from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, EXIT_USAGE, usage
from snapferry.orchestrator.cli.inputs.opened_store import opened, reading
from snapferry.orchestrator.cli.output.activity import activity
from snapferry.orchestrator.cli.output.lines import print_lines, print_list
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.reporting.store_documents import (
    object_change_document,
    path_change_document,
    snapshot_change_document,
)
from snapferry.orchestrator.reporting.text.stores import (
    object_change_line,
    path_change_line,
    snapshot_change_line,
)
from snapferry.stores.inspection.differences import changed_objects, changed_paths, changed_snapshots
from snapferry.stores.names.lookup import find_snapshot
from snapferry.stores.snapshot_store import SnapshotStore

_T = TypeVar("_T")


class _Reference(NamedTuple):
    """A store, and a snapshot in it unless *snapshot* is ""."""

    store: str
    snapshot: str


def diff(
    source: str,
    destination: str,
    exit_code: bool,
    directories: bool,
    objects: bool,
    as_json: bool,
    no_progress: bool,
) -> int:
    settings = read_settings(None)
    one, other = _references(source, destination)
    if one.snapshot and objects:
        usage("--objects compares stores, without @ID")
    if not one.snapshot and directories:
        usage("--directories compares snapshots: give both as STORE@ID")
    with reading(EXIT_USAGE), ExitStack() as stack:
        olds = opened(settings, one.store)
        news = opened(settings, other.store, side="to") if other.store != one.store else olds
        if one.snapshot:
            manifests = []
            with activity(silent=no_progress) as report:
                for place, reference in ((olds, one), (news, other)):
                    report(f"reading the manifest {reference.snapshot}")
                    snapshot_id = find_snapshot(place, reference.snapshot)
                    manifests.append(stack.enter_context(place.read_manifest(snapshot_id)))
            changes = changed_paths(manifests[0], manifests[1], directories=directories)
            differ = _print(changes, path_change_line, path_change_document, as_json)
        else:
            differ = _compare_stores(olds, news, objects, as_json)
    return EXIT_FAILED if differ and exit_code else 0


def _compare_stores(olds: SnapshotStore, news: SnapshotStore, objects: bool, as_json: bool) -> bool:
    if objects:
        return _print(changed_objects(olds, news), object_change_line, object_change_document, as_json)
    return _print(changed_snapshots(olds, news), snapshot_change_line, snapshot_change_document, as_json)


def _print(
    changes: Iterable[_T], line: Callable[[_T], str], document: Callable[[_T], Any], as_json: bool
) -> bool:
    """Print *changes*; return whether there were any."""
    differ = False

    def seen() -> Iterator[_T]:
        nonlocal differ
        for change in changes:
            differ = True
            yield change

    if as_json:
        print_list(map(document, seen()))
    else:
        print_lines(map(line, seen()))
    return differ


def _references(before: str, after: str) -> tuple[_Reference, _Reference]:
    one, other = _reference(before), _reference(after)
    if not one.store:
        usage(f"{before!r} has no store. Give a snapshot as STORE@ID.")
    if bool(one.snapshot) != bool(other.snapshot):
        usage("a snapshot can only be compared with a snapshot. Give both as STORE@ID, or neither.")
    return one, other if other.store else _Reference(one.store, other.snapshot)


def _reference(text: str) -> _Reference:
    """Return the store and the snapshot of STORE@ID. An ID has no slash and may end with @ itself."""
    store, at, snapshot = text.removesuffix("@").rpartition("@")
    if not at or "/" in snapshot:
        return _Reference(text, "")
    return _Reference(store, text[len(store) + 1 :])
