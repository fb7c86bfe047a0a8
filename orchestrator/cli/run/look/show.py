"""Show the files and directories of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from snapferry.orchestrator.cli.inputs.opened_store import opened, reading
from snapferry.orchestrator.cli.inputs.snapshot_ids import snapshot_of
from snapferry.orchestrator.cli.output.lines import print_lines, print_list
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.reporting.store_documents import entry_document
from snapferry.orchestrator.reporting.text.stores import entry_line, tree_lines
from snapferry.stores.inspection.paths import below
from snapferry.stores.manifest.entry import Entry


def show(
    store: str, snapshot: str, path: str, flat: bool, depth: int | None, exact: bool, as_json: bool
) -> int:
    with reading():
        place = opened(read_settings(None), store)
        with place.read_manifest(snapshot_of(place, snapshot)) as manifest:
            entries = _down_to(depth, below(manifest, path))
            if as_json:
                print_list(map(entry_document, entries))
            elif flat:
                print_lines(entry_line(entry, entry.path, exact=exact) for entry in entries)
            else:
                print_lines(tree_lines(entries, exact=exact))
    return 0


def _down_to(depth: int | None, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield those of *entries* that are at most *depth* levels below the first one."""
    top: int | None = None
    for entry in entries:
        level = entry.path.removesuffix("/").count("/")
        top = level if top is None else top
        if depth is None or level - top <= depth:
            yield entry
