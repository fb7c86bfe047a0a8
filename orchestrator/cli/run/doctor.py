"""Check a fleet and stores."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, interrupt_on_sigterm, usage
from snapferry.orchestrator.cli.inputs.snapshot_ids import opening, snapshot_of
from snapferry.orchestrator.cli.inputs.store_names import objects_url
from snapferry.orchestrator.cli.output.doctor_report import document, print_results
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.doctor import examine, worst
from snapferry.orchestrator.jobs import store_pair
from snapferry.orchestrator.reporting.terminal import console, has_rich, is_live
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import parse_url
from snapferry.workers.diagnosis.store_check import Check, Side
from snapferry.workers.messages import StoreRef
from snapferry.workers.settings.environment import InvalidSettings, store_options


def doctor(
    source: str | None,
    destination: str | None,
    from_objects: str | None,
    to_objects: str | None,
    snapshot_ids: tuple[str, ...],
    as_json: bool,
    broker: str | None,
) -> int:
    interrupt_on_sigterm()
    settings = read_settings(broker)
    stores = [objects_url(settings, one) for one in (source, destination, from_objects, to_objects)]
    check = _check(*stores, snapshot_ids=snapshot_ids)
    try:
        with _activity(as_json):
            results = examine(settings, check)
    except InvalidSettings as error:
        usage(str(error))
    if as_json:
        click.echo(json.dumps(document(results), indent=2))
    else:
        print_results(results)
    return EXIT_FAILED if worst(results) == "error" else 0


def _check(
    source: str | None,
    destination: str | None,
    from_objects: str | None,
    to_objects: str | None,
    *,
    snapshot_ids: tuple[str, ...],
) -> Check:
    if snapshot_ids and not source:
        usage("--id requires --from")
    for objects, store, name in ((from_objects, source, "from"), (to_objects, destination, "to")):
        if objects and not store:
            usage(f"--{name}-objects requires --{name}")
    try:
        if source and destination:
            store_pair(source, destination, from_objects, to_objects)
        one, other = _side(source, from_objects, "from"), _side(destination, to_objects, "to")
        return Check(one, other, _ids(one, snapshot_ids))
    except InvalidStoreURL as error:
        usage(str(error))


def _ids(source: Side | None, texts: tuple[str, ...]) -> tuple[str, ...]:
    if source is None:
        return ()
    store = opening(StoreRef(url=source.url, objects_url=source.objects_url))
    return tuple(snapshot_of(store, text, "--id") for text in texts)


def _side(url: str | None, objects: str | None, name: Any) -> Side | None:
    if url is None:
        return None
    options = store_options(name)
    complete = str(parse_url(url).with_defaults(**options))
    return Side(complete, str(parse_url(objects).with_defaults(**options)) if objects else None)


def _activity(as_json: bool) -> AbstractContextManager[Any]:
    """Return a context that shows on a terminal that the checks are running."""
    if as_json or not (is_live(sys.stderr) and has_rich()):
        return nullcontext()
    return console(stderr=True).status("checking")
