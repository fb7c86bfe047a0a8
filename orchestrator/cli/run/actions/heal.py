"""Replace wrong and missing objects of a store: the body of heal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.inputs.job_spec import fields_of
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.inputs.snapshot_ids import chosen_ids
from snapferry.orchestrator.cli.inputs.store_names import objects_url, store_url
from snapferry.orchestrator.cli.launch import run_job
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import check_differ, store_pair
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.format import counted
from snapferry.workers.messages import (
    MOST_SOURCES,
    Action,
    JobSpec,
    Limits,
    StoreRef,
    encode_addresses,
)
from snapferry.workers.settings.environment import Settings


@with_show
def heal(
    broker: str | None, receipt_path: str | None, verbose: bool, detach: bool, show: Show, **given: Any
) -> int:
    settings = read_settings(broker)
    spec = _spec(settings, given)
    check_receipt_path(receipt_path, dry_run=spec.dry_run, detach=detach)
    return run_job(spec, settings, show, receipt_path=receipt_path, verbose=verbose, detach=detach)


def _spec(settings: Settings, given: dict[str, Any]) -> JobSpec:
    """Return the request that the options in *given* describe. Options that contradict each other end the command."""
    store, sources = _stores(settings, given)
    snapshot_ids = chosen_ids(
        given.pop("snapshot_ids"),
        given.pop("ids_from"),
        everything=given.pop("everything"),
        allow_empty_source=False,
        store=store,
    )
    return JobSpec(
        action=Action.HEAL,
        source=sources[0],
        more_sources=tuple(sources[1:]),
        destination=store,
        snapshots=encode_addresses(snapshot_ids or ()),
        everything=snapshot_ids is None,
        limits=Limits(**fields_of(Limits, given)),
        **fields_of(JobSpec, given),
    )


def _stores(settings: Settings, given: dict[str, Any]) -> tuple[StoreRef, list[StoreRef]]:
    """Return the store to heal, and the sources in their order."""
    to_url, objects = store_url(settings, given.pop("store")), objects_url(settings, given.pop("objects"))
    urls: Sequence[str] = [store_url(settings, name) for name in given.pop("sources")]
    if len(urls) > 1 + MOST_SOURCES:
        usage(f"--from is given {counted(len(urls), 'time')}; at most {1 + MOST_SOURCES} are possible")
    pools = [objects_url(settings, given.pop("from_objects")), *[None] * len(urls)]
    try:
        pairs = [store_pair(url, to_url, pool, objects) for url, pool in zip(urls, pools, strict=False)]
        sources = [source for source, _ in pairs]
        check_differ(sources, [f"--from: {url.partition('?')[0]}" for url in urls])
    except InvalidStoreURL as error:
        usage(str(error))
    return pairs[0][1], sources
