"""Options of several commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from .declare import LEVELS, LOGS, argument, option
from .values import Duration

_Command = TypeVar("_Command", bound=Callable[..., Any])

FLEET: Final = "Fleet"
LIMITS: Final = "Limits"
OUTPUT: Final = "Output"

# `status` lists the snapshots of a job that has at most this many.
FEW_SNAPSHOTS: Final = 20

broker_option = option(
    "--broker",
    metavar="URL",
    envvar="SNAPFERRY_BROKER_URL",
    section=FLEET,
    help="Redis server of the fleet, such as redis://host:6379/0.",
)

_job_argument = argument(
    "job", metavar="JOB", text="Id of the job, or its first digits if no other job has them."
)

store_argument = argument(
    "store", metavar="STORE", text="Store: a URL, a path, or a name from snapferry.toml."
)

json_option = option("--json", "as_json", is_flag=True, section=OUTPUT, help="Print the result as JSON.")

log_level_option = option(
    "--log-level",
    alias="--loglevel",
    type=click.Choice(LEVELS, case_sensitive=False),
    envvar="SNAPFERRY_LOG_LEVEL",
    default="info",
    metavar="LEVEL",
    section=LOGS,
    help="Lowest level to log: debug, info, warning, error or critical.",
)

receipt_option = option(
    "--receipt",
    "receipt_path",
    metavar="FILE",
    section=OUTPUT,
    help="Write the job's receipt to FILE when the job ends.",
)

patience_option = option(
    "--patience",
    type=Duration(),
    metavar="DURATION",
    section=LIMITS,
    default_text="30m, but no wait for a store that has never answered",
    help="Wait up to DURATION for an unreachable store, such as 90s, 30m or 2h; this includes the start of the job.",
)


_SHOW_OPTIONS: Final = (
    option("-q", "--quiet", is_flag=True, section=OUTPUT, help="Print errors only."),
    option(
        "--no-progress",
        is_flag=True,
        envvar="SNAPDIR_NO_PROGRESS",
        section=OUTPUT,
        help="Do not show progress.",
    ),
    option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        metavar="WHEN",
        section=OUTPUT,
        help="Use colours: auto (on a terminal), always or never; always also shows the live progress bar.",
    ),
    option(
        "--json",
        "as_json",
        is_flag=True,
        section=OUTPUT,
        help="Print one JSON document when the job ends.",
    ),
)


def job_argument(command: _Command) -> _Command:
    """Give *command* the argument JOB and the option --broker."""
    return _job_argument(broker_option(command))


def show_options(command: _Command) -> _Command:
    """Give *command* the options of `inputs.show.Show`."""
    return with_options(_SHOW_OPTIONS)(command)


def with_options(options: Sequence[Callable[[Any], Any]]) -> Callable[[_Command], _Command]:
    """Return the decorator that gives a command *options*, which its help page shows in this order."""

    def decorate(command: _Command) -> _Command:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate
