"""The stores of the `[[mirror]]` and `[[scrub]]` tables of `snapferry.toml`, to be checked like those of a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from snapferry.orchestrator.jobs import one_store, store_pair
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.diagnosis.store_check import Check, Side
from snapferry.workers.messages import StoreRef
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import Settings
from snapferry.workers.settings.schedule_tables import Mirror, Scrub

from .result import CheckResult

# Seconds after which no further table is checked. Each takes a second or two, a store that hangs a minute.
LONGEST_S: Final = 90.0


def checks_of_tables(settings: Settings) -> Iterator[tuple[str, Check | Finding]]:
    """
    Yield for each table what it is, such as "mirror nightly", and its check; a finding where it can have no job.

    Nothing where there is no configuration file. Raises `InvalidSettings` for one that cannot be used.
    """
    if settings.config is None:
        return
    config = read_config(settings.config)
    for table in config.scheduled:
        try:
            yield f"{table.kind} {table.name}", _check(table, config)
        except InvalidStoreURL as error:
            said = f"no job can have its stores: {error}"
            yield f"{table.kind} {table.name}", Finding(Level.ERROR, "table.stores", said, "change the table")


def _check(table: Mirror | Scrub, config: Config) -> Check:
    if isinstance(table, Mirror):
        source, destination = store_pair(
            config.url(table.from_), config.url(table.to), server_side=table.server_side
        )
        return Check(_side(source), _side(destination))
    return Check(_side(one_store(config.url(table.store))), None)


def _side(store: StoreRef) -> Side:
    return Side(store.url, store.objects_url)


def about(table: str, results: Iterable[CheckResult]) -> list[CheckResult]:
    """Return *results* with the name of the *table* that they are about, "" for none."""
    return [replace(one, about=f"{table}: {one.about}") if table else one for one in results]


def not_checked(table: str) -> CheckResult:
    """Return the result for a table for which there was no time left."""
    said = f"its stores were not checked: the checks before took more than {LONGEST_S:.0f} s"
    advice = "see the findings about the other tables, or give its stores by --from and --to"
    return CheckResult(table, Finding(Level.WARNING, "store.time", said, advice))
