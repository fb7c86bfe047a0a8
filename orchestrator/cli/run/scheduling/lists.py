"""List mirrors and scrubs, and run their scheduler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import click
from celery import signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.cli.exit_codes import end_on_sigterm, note, restart, usage
from snapferry.orchestrator.cli.fleet_access import await_broker, on_fleet
from snapferry.orchestrator.cli.recorded_runs import recorded_runs
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.cli.table import print_table
from snapferry.orchestrator.jobs import JobReader
from snapferry.orchestrator.notify.attach import watcher_of
from snapferry.orchestrator.schedules import report, scrub_report
from snapferry.orchestrator.schedules.schedule import schedule_jobs
from snapferry.orchestrator.schedules.status import (
    MirrorStatus,
    ScrubStatus,
    mirror_statuses,
    scrub_statuses,
    unlisted,
)
from snapferry.orchestrator.schedules.status import forget as forget_expected
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import Freshness
from snapferry.workers.messages import ScheduleKind
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings, state_directory
from snapferry.workers.telemetry import logs

_Status = TypeVar("_Status", MirrorStatus, ScrubStatus)


@dataclass(frozen=True)
class _Table(Generic[_Status]):
    """How mirrors or scrubs are listed. *right*: columns of numbers; *fold*: columns of long text."""

    kind: ScheduleKind
    statuses: Callable[[Settings, JobReader, Config], list[_Status]]
    head: tuple[str, ...]
    row: Callable[[_Status, bool], tuple[str, ...]]
    document: Callable[[_Status], dict[str, Any]]
    right: frozenset[str]
    fold: frozenset[str]


_MIRRORS: Final = _Table(
    "mirror",
    lambda settings, jobs, known: mirror_statuses(settings, jobs, known.mirror),
    report.MIRRORS_HEAD,
    lambda status, scheduler: report.mirror_row(status, scheduler=scheduler),
    report.mirror_document,
    frozenset(),
    frozenset({"FROM → TO", "LAST SUCCESS", "LAST RUN"}),
)
_SCRUBS: Final = _Table(
    "scrub",
    lambda settings, jobs, known: scrub_statuses(settings, jobs, known.scrub),
    scrub_report.SCRUBS_HEAD,
    lambda status, scheduler: scrub_report.scrub_row(status, scheduler=scheduler),
    scrub_report.scrub_document,
    frozenset({"FINDINGS"}),
    frozenset({"STORE", "LAST SUCCESS", "LAST RUN"}),
)


def list_mirrors(forget: str | None, as_json: bool, broker: str | None, state_dir: str | None = None) -> int:
    return _list(_MIRRORS, forget, broker, state_dir, as_json=as_json)


def list_scrubs(forget: str | None, as_json: bool, broker: str | None, state_dir: str | None = None) -> int:
    return _list(_SCRUBS, forget, broker, state_dir, as_json=as_json)


def _list(
    table: _Table[_Status], forget: str | None, broker: str | None, state_dir: str | None, *, as_json: bool
) -> int:
    settings = read_settings(broker)
    if forget is not None:
        return _forget(settings, table.kind, forget)
    known = _read(settings, table.kind)
    with recorded_runs(settings, known, state_dir or state_directory()) as (recorded, jobs):
        found = table.statuses(recorded, jobs, known)
        others = unlisted(recorded, table.kind, [one.name for one in found])
    if as_json:
        _print_documents(table.kind, [table.document(one) for one in found], others)
        return 0
    has_scheduler = settings.broker_url is not None
    rows = [table.row(one, has_scheduler) for one in found]
    print_table(table.head, rows, right=table.right, fold=table.fold)
    if has_scheduler:
        _note_unscheduled({one.name: one.next_at for one in found})
    _note_unlisted(table.kind, others)
    return 0


def _forget(settings: Settings, kind: ScheduleKind, name: str) -> int:
    """Expect the mirror or scrub *name* no longer. A file that still has it would make it expected again."""
    known = Config() if settings.config is None else _read(settings)
    if any((one.kind, one.name) == (kind, name) for one in known.scheduled):
        usage(
            f"{settings.config} has the {kind} {name}: remove it there, and restart scheduler and orchestrators"
        )
    with on_fleet(settings, advice=""):
        if not forget_expected(settings, kind, name):
            usage(f"no {kind} is expected under the name {printable(name)[:64]}")
    note(f"the {kind} {name} is no longer expected to run")
    return 0


def _print_documents(kind: ScheduleKind, documents: list[dict[str, Any]], others: list[Freshness]) -> None:
    documents += [report.unlisted_document(kind, one) for one in others]
    click.echo(json.dumps(documents, indent=2))


def _note_unlisted(kind: ScheduleKind, others: list[Freshness]) -> None:
    """Note on standard error which mirrors or scrubs are expected, but not in the file."""
    for one in others:
        name = one.expected.name
        note(
            f"the {kind} {name} is not in the file, and still expected to run (last success:"
            f" {report.success_text(one.success_at, one)}). Put it back, or run: snapferry {kind}s --forget {name}"
        )


def _note_unscheduled(due: Mapping[str, float | None]) -> None:
    """Note on standard error which mirrors or scrubs are not in the schedule; *due* is when each runs next, by name."""
    names = [name for name, at in due.items() if at is None]
    overdue = [at for at in due.values() if at is not None and at < time.time() - report.OVERDUE_S]
    if overdue or (names and len(names) == len(due)):
        note("no scheduler is running. Start one: snapferry scheduler")
    elif names:
        note(
            f"the running scheduler does not know {', '.join(names)}: it has read another file, or an older"
            " version of this one. Restart it."
        )


def scheduler(broker: str | None, log_level: str) -> int:
    end_on_sigterm()
    settings = read_settings(broker)
    known = _read(settings, "mirror", "scrub")
    try:
        app = make_fleet_app(settings)
        schedule_jobs(app, settings, known)
    except InvalidSettings as error:
        usage(str(error))
    await_broker(settings)

    def configure_logs(**_: Any) -> None:
        logs.configure(settings, level=log_level.upper())

    signals.setup_logging.connect(configure_logs)
    # Lateness is noticed while no orchestrator runs.
    watcher = watcher_of(settings)
    watcher.start()
    try:
        app.Beat(loglevel=log_level.upper(), quiet=True).run()
    except (RedisError, OperationalError) as error:
        restart(f"the scheduler lost its broker ({error})")
    finally:
        watcher.stop()
    return 0


def _read(settings: Settings, *kinds: ScheduleKind) -> Config:
    """Return the configuration file, which has a table of one of *kinds* if any is given; an error ends the command."""
    if settings.config is None:
        usage("no snapferry.toml in this directory. Use --config FILE, or set SNAPFERRY_CONFIG.")
    try:
        found = read_config(settings.config)
    except InvalidSettings as error:
        usage(str(error))
    if kinds and not any(one.kind in kinds for one in found.scheduled):
        usage(f"{settings.config}: the file has no {' or '.join(f'[[{kind}]]' for kind in kinds)}")
    return found
