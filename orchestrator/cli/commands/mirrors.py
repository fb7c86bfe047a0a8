"""The commands about what is copied again and again: mirrors and scheduler."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from snapferry.orchestrator.cli.exit_codes import (
    await_broker,
    end_on_sigterm,
    note,
    on_fleet,
    read_settings,
    start_again,
    usage,
)
from snapferry.orchestrator.cli.options import broker_option, config_option, json_option
from snapferry.orchestrator.cli.table import print_table

if TYPE_CHECKING:
    from snapferry.workers.settings.config_file import Config
    from snapferry.workers.settings.environment import Settings


@click.command(name="mirrors")
@config_option
@json_option
@broker_option
def list_mirrors(config: str | None, as_json: bool, broker: str | None) -> int:
    """List the mirrors of snapferry.toml: what became of their last runs, and when they are due next."""
    settings = read_settings(broker, config=config)
    known = _mirrors(settings)
    with on_fleet(settings, lost="") as jobs:
        from snapferry.orchestrator.mirrors import report
        from snapferry.orchestrator.mirrors.status import mirror_statuses

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
    without = [one.mirror.name for one in found if one.next_at is None]
    if found and len(without) == len(found):
        note("nobody keeps the schedule: run `snapferry scheduler`")
    elif without:
        note(
            f"not in the schedule that runs: {', '.join(without)}. The scheduler reads another file, or this one as it"
            " was before: restart it"
        )
    return 0


@click.command()
@config_option
@broker_option
@click.option(
    "--loglevel",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    default="info",
    show_default=True,
    help="What is logged at least.",
)
def scheduler(config: str | None, broker: str | None, loglevel: str) -> int:
    """
    Queue each mirror of snapferry.toml when it is due.

    Celery beat, with its schedule in Redis. Several may run, with the same file; one of them works, and another takes
    over if it dies. A scheduler with another file warns and waits until the first one ends.
    """
    end_on_sigterm()
    from celery import signals
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    from snapferry.orchestrator.app import make_fleet_app
    from snapferry.orchestrator.mirrors.schedule import schedule_mirrors
    from snapferry.workers.settings.environment import InvalidSettings
    from snapferry.workers.telemetry import logs

    settings = read_settings(broker, config=config)
    known = _mirrors(settings)
    try:
        app = make_fleet_app(settings)
        schedule_mirrors(app, settings, known)
    except InvalidSettings as error:
        usage(str(error))
    await_broker(settings)

    def log_as_set(**_: Any) -> None:
        logs.configure(settings, level=loglevel.upper())

    signals.setup_logging.connect(log_as_set)
    try:
        app.Beat(loglevel=loglevel.upper(), quiet=True).run()
    except (RedisError, OperationalError) as error:
        start_again(f"the scheduler lost its broker ({error})")
    # It goes on until it is told to stop.
    return 0


def _mirrors(settings: Settings) -> Config:
    from snapferry.workers.settings.config_file import read_config
    from snapferry.workers.settings.environment import InvalidSettings

    if settings.config is None:
        usage("no snapferry.toml here: give --config FILE, or set SNAPFERRY_CONFIG")
    try:
        found: Any = read_config(settings.config)
    except InvalidSettings as error:
        usage(str(error))
    if not found.mirror:
        usage(f"{settings.config}: there is no [[mirror]] in it")
    return found  # type: ignore[no-any-return]
