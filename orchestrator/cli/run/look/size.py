"""Show the size of a store or of a snapshot."""

from __future__ import annotations

import json

import click

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.inputs.opened_store import opened, reading
from snapferry.orchestrator.cli.inputs.snapshot_ids import snapshot_of
from snapferry.orchestrator.cli.output.activity import activity
from snapferry.orchestrator.cli.output.lines import print_lines
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.reporting.store_documents import sizes_document
from snapferry.orchestrator.reporting.text.stores import sizes_lines
from snapferry.stores.inspection.sizes import snapshot_size, store_size
from snapferry.stores.text.format import counted


def size(
    store: str, snapshot: str | None, shared: bool, exact: bool, as_json: bool, no_progress: bool
) -> int:
    if shared and snapshot is None:
        usage("--shared requires --id; the size of a store always has it")
    with reading():
        place = opened(read_settings(None), store)
        snapshot_id = None if snapshot is None else snapshot_of(place, snapshot, "--id")
        with activity(silent=no_progress) as report:

            def progress(manifests: int) -> None:
                report(f"{counted(manifests, 'manifest')} read")

            if snapshot_id is None:
                found = store_size(place, progress)
            else:
                found = snapshot_size(place, snapshot_id, shared=shared, progress=progress)
    if as_json:
        click.echo(json.dumps(sizes_document(found, snapshot_id), indent=2))
    else:
        print_lines(sizes_lines(found, exact=exact))
    return 0
