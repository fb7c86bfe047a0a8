"""List mirrors and scrubs, and run their scheduler."""

from __future__ import annotations

import json
from typing import Any

import click
from celery import signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.cli.exit_codes import end_on_sigterm, note, restart, usage
from snapferry.orchestrator.cli.fleet_access import await_broker, on_fleet
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.cli.table import print_table
from snapferry.orchestrator.schedules import report, scrub_report
from snapferry.orchestrator.schedules.schedule import schedule_jobs
from snapferry.orchestrator.schedules.status import mirror_statuses, scrub_statuses
from snapferry.workers.messages import ScheduleKind
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings
from snapferry.workers.telemetry import logs


def list_mirrors(config: str | None, as_json: bool, broker: str | None) -> int:
    settings = read_settings(broker, config=config)
    known = _read(settings, "mirror")
    with on_fleet(settings, advice="") as jobs:
        found = mirror_statuses(settings, jobs, known.mirror)
    if as_json:
        click.echo(json.dumps([report.mirror_document(one) for one in found], indent=2))
        return 0
    print_table(
        report.MIRRORS_HEAD,
        map(report.mirror_row, found),
        right=frozenset(),
        fold=frozenset({"FROM → TO", "LAST"}),
    )
    _note_unscheduled([one.mirror.name for one in found if one.next_at is None], len(found))
    return 0


def list_scrubs(config: str | None, as_json: bool, broker: str | None) -> int:
    settings = read_settings(broker, config=config)
    known = _read(settings, "scrub")
    with on_fleet(settings, advice="") as jobs:
        found = scrub_statuses(settings, jobs, known.scrub)
    if as_json:
        click.echo(json.dumps([scrub_report.scrub_document(one) for one in found], indent=2))
        return 0
    print_table(
        scrub_report.SCRUBS_HEAD,
        map(scrub_report.scrub_row, found),
        right=frozenset({"FINDINGS"}),
        fold=frozenset({"STORE", "LAST"}),
    )
    _note_unscheduled([one.scrub.name for one in found if one.next_at is None], len(found))
    return 0


def _note_unscheduled(names: list[str], total: int) -> None:
    """Note on standard error which of *total* mirrors or scrubs are not in the schedule, by their *names*."""
    if names and len(names) == total:
        note("no scheduler is running. Start one: snapferry scheduler")
    elif names:
        note(
            f"the running scheduler does not know {', '.join(names)}: it has read another file, or an older"
            " version of this one. Restart it."
        )


def scheduler(config: str | None, broker: str | None, log_level: str) -> int:
    end_on_sigterm()
    settings = read_settings(broker, config=config)
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
    try:
        app.Beat(loglevel=log_level.upper(), quiet=True).run()
    except (RedisError, OperationalError) as error:
        restart(f"the scheduler lost its broker ({error})")
    return 0


def _read(settings: Settings, *kinds: ScheduleKind) -> Config:
    """Return the configuration file, which has at least one table of *kinds*; an error ends the command."""
    if settings.config is None:
        usage("no snapferry.toml in this directory. Use --config FILE, or set SNAPFERRY_CONFIG.")
    try:
        found = read_config(settings.config)
    except InvalidSettings as error:
        usage(str(error))
    if not any(one.kind in kinds for one in found.scheduled):
        usage(f"{settings.config}: the file has no {' or '.join(f'[[{kind}]]' for kind in kinds)}")
    return found
