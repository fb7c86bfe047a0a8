"""The commands about what runs on a schedule: mirrors, scrubs and scheduler."""

from __future__ import annotations

from snapferry.orchestrator.cli.options.common import (
    broker_option,
    config_option,
    json_option,
    log_level_option,
)
from snapferry.orchestrator.cli.options.declare import command, option

_forget_option = option(
    "--forget",
    metavar="NAME",
    help="Expect NAME no longer, which was removed from snapferry.toml.",
)


@command(run="schedules:list_mirrors", name="mirrors")
@config_option
@_forget_option
@json_option
@broker_option
def list_mirrors() -> None:
    """
    List the mirrors of snapferry.toml, with their last success and their last and next runs.

    A mirror is late when the second run since its last success is due, or after
    its late-after. A mirror that was removed from snapferry.toml is late as
    well, until you forget it.
    """


@command(run="schedules:list_scrubs", name="scrubs")
@config_option
@_forget_option
@json_option
@broker_option
def list_scrubs() -> None:
    """
    List the scrubs of snapferry.toml, with their last success and their last and next runs.

    FINDINGS counts the wrong objects and unreadable manifests that were found
    when each part of the store was read for the last time. OLDEST UNVERIFIED is
    the age of the oldest reading: the whole store has been read since.
    """


@command(run="schedules:scheduler")
@config_option
@broker_option
@log_level_option
def scheduler() -> None:
    """
    Run the scheduler, which queues each mirror and scrub of snapferry.toml when it is due.

    The scheduler is Celery beat with its schedule in Redis. Several may run with
    the same file: one is active, and another takes over if it dies. A scheduler
    with a different file warns, and waits until the active one ends.
    """
