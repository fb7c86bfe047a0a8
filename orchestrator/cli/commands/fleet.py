"""The commands that run the roles of a fleet: worker and orchestrator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from snapferry.orchestrator.cli.options.common import FLEET, broker_option, log_level_option
from snapferry.orchestrator.cli.options.declare import LOGS, argument, command, examples, option
from snapferry.orchestrator.cli.options.values import QueueName, WholeNumber

PROCESS: Final = "Process"

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Options that Celery knows are passed on without the separator --, too.
_SETTINGS: Final = {"ignore_unknown_options": True}

_celery_options = argument(
    "celery_options",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[CELERY_OPTIONS]...",
    text="Options of celery worker, passed on unchanged.",
)


def _role_options(command: _Command) -> _Command:
    """Give *command* the options that workers and orchestrators share."""
    options = (
        option(
            "-n",
            "--name",
            "node",
            alias="--hostname",
            metavar="NAME",
            default_text="the role",
            section=PROCESS,
            help="Name of this node, followed by the machine's as in NAME@MACHINE. Processes of one role on one machine"
            " need different names.",
        ),
        option(
            "--grace",
            type=click.FloatRange(0, 86400),
            envvar="SNAPFERRY_GRACE",
            metavar="SECONDS",
            default_text="30",
            section=PROCESS,
            help="Seconds that running tasks have to finish after SIGTERM; unfinished tasks are requeued.",
        ),
        option(
            "--log-format",
            type=click.Choice(["auto", "json", "text"], case_sensitive=False),
            envvar="SNAPFERRY_LOG_FORMAT",
            metavar="FORMAT",
            default_text="auto",
            section=LOGS,
            help="Log format: auto (text on a terminal, else JSON), json or text.",
        ),
        log_level_option,
        option(
            "--metrics-port",
            type=WholeNumber(1, 65535, shown=False),
            envvar="SNAPFERRY_METRICS_PORT",
            metavar="PORT",
            section=LOGS,
            help="Serve Prometheus metrics on this port.",
        ),
        option(
            "--metrics-address",
            envvar="SNAPFERRY_METRICS_ADDRESS",
            metavar="ADDRESS",
            default_text="127.0.0.1",
            section=LOGS,
            help="Address to serve metrics on.",
        ),
    )
    for decorate in reversed(options):
        command = decorate(command)
    return command


WORKER_EXAMPLES: Final = """
Examples:

\b
  Run a worker of 8 processes:
    snapferry worker --broker redis://queue:6379/0 -c 8

\b
  Run a second worker on the same machine, under a name of its own:
    snapferry worker --broker redis://queue:6379/0 --name worker-2

\b
  Let Celery start 2 to 8 processes, as the load requires:
    snapferry worker --broker redis://queue:6379/0 -- --autoscale 8,2
"""


@command(run="fleet:worker", context_settings=_SETTINGS, epilog=WORKER_EXAMPLES)
@broker_option
@option(
    "--queue",
    "names",
    multiple=True,
    type=QueueName(),
    completes="queue",
    metavar="NAME",
    default_text="default",
    section=FLEET,
    help="Serve the queue of jobs that were submitted with --queue NAME; default serves jobs without a queue. May be"
    " repeated.",
)
@option(
    "-c",
    "--concurrency",
    type=WholeNumber(1, 256),
    metavar="N",
    default_text="number of cores",
    section=PROCESS,
    help="Batches to copy at once.",
)
@_role_options
@_celery_options
def worker() -> None:
    """
    Run a worker, which copies objects.

    A worker copies batches of any job of the fleet. The command runs celery -A
    snapferry.worker worker with suitable options; -Q is snapferry.copy, or
    snapferry.copy.NAME for each --queue NAME.
    """


ORCHESTRATOR_EXAMPLES: Final = examples(
    ("Run an orchestrator", "snapferry orchestrator --broker redis://queue:6379/0"),
    (
        "Keep an export of the open jobs, in case Redis is lost",
        "snapferry orchestrator --broker redis://queue:6379/0 \\\n  --export-jobs /var/lib/snapferry/jobs.json",
    ),
)


@command(
    run="fleet:orchestrator", extra="orchestrator", context_settings=_SETTINGS, epilog=ORCHESTRATOR_EXAMPLES
)
@broker_option
@option(
    "-c",
    "--concurrency",
    type=WholeNumber(1, 256),
    default=2,
    metavar="N",
    section=PROCESS,
    help="Jobs to plan or publish at once.",
)
@option(
    "--export-jobs",
    type=click.Path(dir_okay=False),
    envvar="SNAPFERRY_EXPORT_JOBS",
    metavar="FILE",
    section=PROCESS,
    help="Keep an export of the open jobs and the schedules in FILE, for snapferry jobs recover.",
)
@_role_options
@_celery_options
def orchestrator() -> None:
    """
    Run an orchestrator, which plans and publishes jobs.

    Several orchestrators may run at once. Without any, workers still finish the
    batches that are queued. The command runs celery -A snapferry.orchestrator
    worker -Q snapferry.plan with suitable options.
    """
