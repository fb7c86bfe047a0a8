"""Look at the objects of a store: the body of verify."""

from __future__ import annotations

import random
from typing import Any

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.inputs.job_spec import fields_of
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.inputs.snapshot_ids import chosen_ids
from snapferry.orchestrator.cli.inputs.store_names import objects_url, store_url
from snapferry.orchestrator.cli.launch import run_job
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import one_store
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.messages import Action, JobSpec, Limits, Scope, VerifyOptions, encode_addresses
from snapferry.workers.settings.environment import Settings


@with_show
def verify(
    broker: str | None, receipt_path: str | None, verbose: bool, detach: bool, show: Show, **given: Any
) -> int:
    settings = read_settings(broker)
    spec = _spec(settings, given)
    check_receipt_path(receipt_path, dry_run=spec.dry_run, detach=detach)
    return run_job(spec, settings, show, receipt_path=receipt_path, verbose=verbose, detach=detach)


def _spec(settings: Settings, given: dict[str, Any]) -> JobSpec:
    """Return the request that the options in *given* describe. Options that contradict each other end the command."""
    try:
        pool = objects_url(settings, given.pop("objects"))
        store = one_store(store_url(settings, given.pop("store")), pool)
    except InvalidStoreURL as error:
        usage(str(error))
    snapshot_ids = chosen_ids(
        given.pop("snapshot_ids"),
        given.pop("ids_from"),
        everything=given.pop("everything"),
        allow_empty_source=given["allow_empty_source"],
        store=store,
    )
    of, max_time = given.pop("sample"), given.pop("max_time")
    return JobSpec(
        action=Action.VERIFY,
        source=store,
        destination=store,
        snapshots=encode_addresses(snapshot_ids or ()),
        everything=snapshot_ids is None,
        # The sample is a part of the request, so that a retry looks at the same objects.
        scope=Scope(samples=of, sample=random.randrange(of)) if of is not None else Scope(),
        verify=VerifyOptions(
            fast=given.pop("fast"),
            max_bytes=given.pop("max_bytes"),
            max_seconds=None if max_time is None else round(max_time),
        ),
        limits=Limits(**fields_of(Limits, given)),
        **fields_of(JobSpec, given),
    )
