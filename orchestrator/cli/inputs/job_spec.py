"""The request for a job, from the options of sync, plan and submit."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import wraps
from typing import Any

from pydantic import BaseModel

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import store_pair
from snapferry.orchestrator.planning.prices import InvalidPrices, read_prices
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import is_metered
from snapferry.workers.messages import Budget, JobSpec, Limits, Prune, StoreRef, encode_addresses
from snapferry.workers.settings.environment import Settings

from .snapshot_ids import chosen_ids
from .store_names import objects_url, store_url


def with_job_spec(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return *run* with the options of `copy_options` in place of its arguments *spec* and *settings*."""

    @wraps(run)
    def building(broker: str | None, prices: str | None, **given: Any) -> Any:
        settings = read_settings(broker, prices)
        spec = job_spec(settings, given)
        return run(spec=spec, settings=settings, **given)

    return building


def job_spec(settings: Settings, given: MutableMapping[str, Any]) -> JobSpec:
    """
    Return the request that the options in *given* describe, and remove these options from *given*.

    Options that contradict each other end the command.
    """
    stores = _stores(settings, given)
    snapshot_ids = chosen_ids(
        given.pop("snapshot_ids"),
        given.pop("ids_from"),
        everything=given.pop("everything"),
        allow_empty_source=given["allow_empty_source"],
        store=stores[0],
    )
    if given["checksum"] and given["trust_manifest"]:
        usage("--checksum compares objects that --trust-manifest does not look at. Use one of them.")
    prune = _prune(given)
    budget = _budget(settings, given, stores)
    limits = Limits(**fields_of(Limits, given))
    options = fields_of(JobSpec, given)
    # A user who forces deletion with an empty source knows that it is empty.
    options["allow_empty_source"] |= prune is not None and prune.force
    source, destination = stores
    return JobSpec(
        source=source,
        destination=destination,
        snapshots=encode_addresses(snapshot_ids or ()),
        everything=snapshot_ids is None,
        prune=prune,
        budget=budget,
        limits=limits,
        **options,
    )


def fields_of(kind: type[BaseModel], given: MutableMapping[str, Any]) -> dict[str, Any]:
    """Remove the options from *given* that are fields of *kind*; return those that have a value."""
    named = {name: given.pop(name) for name in kind.model_fields if name in given}
    return {name: value for name, value in named.items() if value is not None}


def _stores(settings: Settings, given: MutableMapping[str, Any]) -> tuple[StoreRef, StoreRef]:
    try:
        return store_pair(
            store_url(settings, given.pop("source")),
            store_url(settings, given.pop("destination")),
            objects_url(settings, given.pop("from_objects")),
            objects_url(settings, given.pop("to_objects")),
            server_side=given["server_side"],
        )
    except InvalidStoreURL as error:
        usage(str(error))


def _prune(given: MutableMapping[str, Any]) -> Prune | None:
    prune = Prune(**fields_of(Prune, given))
    if given.pop("delete"):
        return prune
    if prune != Prune():
        usage(f"{'--force-delete' if prune.force else '--max-delete'} requires --delete")
    return None


def _budget(settings: Settings, given: MutableMapping[str, Any], stores: tuple[StoreRef, StoreRef]) -> Budget:
    budget = Budget(**fields_of(Budget, given))
    if settings.prices is None:
        if budget.max_cost is not None:
            usage("--max-cost requires prices. Use --prices FILE, or set SNAPFERRY_PRICES.")
        return budget
    try:
        table = read_prices(settings.prices)
    except InvalidPrices as error:
        usage(str(error))
    for store in stores:
        # A store without a price would count as free, and the limit would have no effect.
        if budget.max_cost is not None and is_metered(store.url) and not table.has_price_for(store.url):
            usage(f"--max-cost: price table {settings.prices} has no price for {store.url.split('?', 1)[0]}")
    return budget.model_copy(update={"currency": table.currency, "prices": table.prices})
