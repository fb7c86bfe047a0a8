"""The commands about mirrors, which are synced on a schedule: mirrors and scheduler."""

from __future__ import annotations

from snapferry.orchestrator.cli.options.common import (
    broker_option,
    config_option,
    json_option,
    log_level_option,
)
from snapferry.orchestrator.cli.options.declare import command


@command(run="mirrors:list_mirrors", name="mirrors")
@config_option
@json_option
@broker_option
def list_mirrors() -> None:
    """List the mirrors of snapferry.toml, with their last and next runs."""


@command(run="mirrors:scheduler")
@config_option
@broker_option
@log_level_option
def scheduler() -> None:
    """
    Run the scheduler, which queues each mirror of snapferry.toml when it is due.

    The scheduler is Celery beat with its schedule in Redis. Several may run with
    the same file: one is active, and another takes over if it dies. A scheduler
    with a different file warns, and waits until the active one ends.
    """
