"""List objects that no manifest names."""

from __future__ import annotations

import json
import time

import click

from snapferry.orchestrator.cli.exit_codes import note, usage
from snapferry.orchestrator.cli.inputs.opened_store import opened, reading
from snapferry.orchestrator.cli.output.activity import activity
from snapferry.orchestrator.cli.output.lines import print_document, print_lines
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.reporting.store_documents import orphan_document, orphans_document
from snapferry.orchestrator.reporting.text.stores import orphan_line, orphans_text
from snapferry.stores.inspection.orphans import find_orphans


def orphans(
    stores: tuple[str, ...],
    objects: str | None,
    older_than: float | None,
    count: bool,
    exact: bool,
    as_json: bool,
    no_progress: bool,
) -> int:
    if len(stores) > 1 and objects is None:
        usage("several stores require --objects, the store with the objects that their manifests name")
    settings = read_settings(None)
    before = None if older_than is None else time.time() - older_than
    with reading():
        places = [opened(settings, store) for store in stores]
        pool = places[0]
        if objects is not None:
            # The pool may be a store too: then its own snapshots need its objects.
            pool = opened(settings, objects)
            places.append(pool)
        with activity(silent=no_progress) as report:
            found = find_orphans(
                pool,
                places,
                before=before,
                progress=lambda what, number: report(f"{number:,} {what} read"),
            )
        with found:
            if as_json and count:
                click.echo(json.dumps(orphans_document(found), indent=2))
            elif as_json:
                print_document(orphans_document(found), "orphans", map(orphan_document, found))
            elif count:
                click.echo(orphans_text(found))
            else:
                print_lines(orphan_line(orphan, exact=exact) for orphan in found)
                note(orphans_text(found))
    return 0
