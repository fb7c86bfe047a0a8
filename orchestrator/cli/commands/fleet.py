"""The commands that run the roles of a fleet: worker and orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click
from celery import signals

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.cli.exit_codes import end_on_sigterm, note, restart, usage
from snapferry.orchestrator.cli.options.common import FLEET, LOGS, broker_option, log_level_option
from snapferry.orchestrator.cli.options.declare import argument, command, option
from snapferry.orchestrator.cli.options.values import QueueName, WholeNumber
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.stores.access import AccessPolicy
from snapferry.stores.opening import prepare
from snapferry.workers.app import make_app
from snapferry.workers.lifecycle.shutdown import requested
from snapferry.workers.queues import PLAN_QUEUE, copy_queue
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import InvalidSettings, Settings, traces_wanted
from snapferry.workers.telemetry.metrics.catalogue import Role

# Celery's exit code after what it calls an unrecoverable error.
CELERY_BROKE_DOWN: Final = 1

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
  Let Celery start 2 to 8 processes, as the load requires:
    snapferry worker --broker redis://queue:6379/0 -- --autoscale 8,2
"""


@command(context_settings=_SETTINGS, epilog=WORKER_EXAMPLES)
@broker_option
@option(
    "--queue",
    "names",
    multiple=True,
    type=QueueName(),
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
def worker(
    broker: str | None,
    concurrency: int | None,
    names: tuple[str, ...],
    celery_options: tuple[str, ...],
    **settings: Any,
) -> None:
    """
    Run a worker, which copies objects.

    A worker copies batches of any job of the fleet. The command runs celery -A
    snapferry.worker worker with suitable options; -Q is snapferry.copy, or
    snapferry.copy.NAME for each --queue NAME.
    """
    queues = ",".join(dict.fromkeys(map(copy_queue, names or ("",))))
    _run_role(make_app, broker, "worker", queues, concurrency, celery_options, settings)


@command(context_settings=_SETTINGS)
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
@_role_options
@_celery_options
def orchestrator(
    broker: str | None, concurrency: int, celery_options: tuple[str, ...], **settings: Any
) -> None:
    """
    Run an orchestrator, which plans and publishes jobs.

    Several orchestrators may run at once. Without any, workers still finish the
    batches that are queued. The command runs celery -A snapferry.orchestrator
    worker -Q snapferry.plan with suitable options.
    """
    _run_role(make_fleet_app, broker, "orchestrator", PLAN_QUEUE, concurrency, celery_options, settings)


def _run_role(
    make: Callable[[Settings, AccessPolicy], Any],
    broker: str | None,
    role: Role,
    queues: str,
    concurrency: int | None,
    options: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    end_on_sigterm()
    try:
        known = read_settings(broker, **settings)
        app = make(known, access_policy(known, f"the {role}"))
    except InvalidSettings as error:
        usage(str(error))
    # Celery forks its processes from this one, now and whenever it replaces one; they share what is loaded by then.
    prepare()
    arguments = ["worker", "--queues", queues]
    arguments += ["--hostname", f"{role}@%h", "--loglevel", settings["log_level"]]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    started: list[Any] = []
    signals.worker_init.connect(lambda sender, **_: started.append(sender), weak=False)
    _trace(role)
    with _metrics(app, known, role):
        app.worker_main([*arguments, *options])
    if not started or started[0].exitcode != CELERY_BROKE_DOWN or requested():
        return
    # Celery's consumer can break down if Redis goes away at the wrong moment.
    end_on_sigterm()
    restart(f"the {role} broke down (see the log above)")


@contextmanager
def _metrics(app: Any, settings: Settings, role: Role) -> Iterator[None]:
    """Serve the metrics of this process in the block, if a port is set."""
    if settings.metrics_port is None:
        yield
        return
    # Counting costs time and memory, so the library is loaded only if metrics are wanted.
    from snapferry.orchestrator.reporting.fleet_metrics import FleetCollector
    from snapferry.workers.telemetry.metrics.exporter import CannotServe, serving

    address, port = settings.metrics_address, settings.metrics_port
    tasks = sorted(name for name in app.tasks if name.startswith("snapferry."))
    collectors = [FleetCollector(app, settings)] if role == "orchestrator" else []
    try:
        with serving(role, address, port, tasks=tasks, collectors=collectors):
            note(f"metrics at http://{address}:{port}/metrics")
            yield
    except CannotServe as error:
        usage(str(error))


def _trace(role: Role) -> None:
    """Send traces if OpenTelemetry's variables name a collector; they may be set for a whole machine."""
    if not traces_wanted():
        return
    # An optional dependency, and slow to load.
    from snapferry.workers.telemetry.tracing import NotInstalled, attach

    try:
        attach(role)
    except NotInstalled as error:
        note(str(error))
