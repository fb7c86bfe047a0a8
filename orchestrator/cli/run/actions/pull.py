"""Make a directory tree of a snapshot: the body of pull."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.inputs.job_spec import fields_of
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.inputs.snapshot_ids import chosen_ids
from snapferry.orchestrator.cli.inputs.store_names import objects_url, store_url
from snapferry.orchestrator.cli.launch import run_job
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import store_pair, tree_path, tree_url
from snapferry.orchestrator.planning.trees.apart import check_apart
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.printable import subject
from snapferry.workers.messages import Action, JobSpec, Limits, TreeOptions, encode_addresses


@with_show
def pull(
    path: str,
    source: str,
    from_objects: str | None,
    snapshot_id: str,
    delete: bool,
    linked: bool,
    broker: str | None,
    detach: bool,
    receipt_path: str | None,
    verbose: bool,
    show: Show,
    **given: Any,
) -> int:
    settings = read_settings(broker)
    check_receipt_path(receipt_path, dry_run=given["dry_run"], detach=detach)
    try:
        path = tree_path(path)
        tree_at = tree_url(path)
        if settings.broker_url is None and os.path.lexists(path) and not Path(path).is_dir():
            usage(f"{subject(path)}: is not a directory")
        pool = objects_url(settings, from_objects)
        store, tree = store_pair(store_url(settings, source), tree_at, pool)
        check_apart(store, tree)
    except InvalidStoreURL as error:
        usage(str(error))
    ids = chosen_ids([snapshot_id], None, everything=False, allow_empty_source=False, store=store)
    spec = JobSpec(
        action=Action.PULL,
        source=store,
        destination=tree,
        snapshots=encode_addresses(ids or ()),
        tree=TreeOptions(delete=delete, linked=linked),
        limits=Limits(**fields_of(Limits, given)),
        **fields_of(JobSpec, given),
    )
    return run_job(spec, settings, show, receipt_path=receipt_path, verbose=verbose, detach=detach)
