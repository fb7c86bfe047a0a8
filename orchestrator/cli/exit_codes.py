"""
How a command ends: exit codes, and one line on standard error for whatever is wrong.

0 done; 1 the job failed, or its receipt could not be written; 2 bad usage or configuration, and nothing was begun;
130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from snapferry.stores.text.printable import printable

if TYPE_CHECKING:
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.workers.settings.environment import Settings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# The pause before a role is started again.
RESTART_S = 5

SUBMIT_AGAIN = "Run the same command again to resume."


def note(message: str) -> None:
    """Say something beside the result."""
    lines = message.split("\n")
    click.echo("\n".join(printable(line) for line in [f"snapferry: {lines[0]}", *lines[1:]]), err=True)


def usage(message: str) -> NoReturn:
    """End the command: it was called wrongly, and nothing was begun."""
    note(message)
    raise SystemExit(EXIT_USAGE)


def fail(message: str) -> NoReturn:
    """End the command: what it was for did not come about."""
    note(message)
    raise SystemExit(EXIT_FAILED)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM do what Ctrl-C does."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def end_on_sigterm() -> None:
    """
    Let SIGTERM end this process, well, for as long as Celery has no handler of its own.

    As the first process of a container it would not even end by SIGTERM without one.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def start_again(why: str) -> NoReturn:
    """Replace this process by the same command, after a pause: a new process has no past."""
    note(f"{why}; starting again in {RESTART_S} s")
    time.sleep(RESTART_S)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command again


def await_broker(settings: Settings) -> None:
    """Wait for the broker, however long it is away. One that must not be used ends the command."""
    from snapferry.workers.broker.connection import BrokerUnfit, wait_for_broker

    try:
        wait_for_broker(settings.broker_url or "", note)
    except BrokerUnfit as error:
        usage(str(error))


def read_settings(broker: str | None, prices: str | None = None, **overrides: Any) -> Settings:
    """Return the settings; what the command line says wins over the environment."""
    from snapferry.workers.settings.directory_rules import apply_to_directories
    from snapferry.workers.settings.environment import InvalidSettings, Settings

    try:
        settings = Settings.from_environment(broker_url=broker, prices=prices, **overrides)
    except InvalidSettings as error:
        usage(str(error))
    apply_to_directories(settings)
    return settings


@contextmanager
def on_fleet(settings: Settings, *, lost: str) -> Iterator[Jobs]:
    """
    Give the fleet's jobs; a broker that cannot be used, or loses a job on the way, is a line and an exit code.

    *lost* says what to do about a job that is lost.
    """
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.workers.broker.connection import BrokerUnavailable
    from snapferry.workers.ledger import UnknownJob, UnreadableJob

    if settings.broker_url is None:
        usage("no broker: set SNAPFERRY_BROKER_URL, or give --broker")
    try:
        jobs = Jobs(settings)
    except BrokerUnavailable as error:
        usage(str(error))
    try:
        yield jobs
    except BrokerUnavailable as error:
        fail(str(error))
    except UnreadableJob as error:
        fail(str(error))
    except UnknownJob as error:
        fail(f"the record of job {error} is gone: the broker lost its data. {lost}")
