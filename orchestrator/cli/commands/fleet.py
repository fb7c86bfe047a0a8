"""The commands that run the roles of a fleet: worker and orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from snapferry.orchestrator.cli.exit_codes import end_on_sigterm, note, read_settings, start_again, usage
from snapferry.orchestrator.cli.options import broker_option, queue_names

if TYPE_CHECKING:
    from snapferry.stores.access import AccessPolicy
    from snapferry.workers.settings.environment import Settings
    from snapferry.workers.telemetry.metrics.catalogue import Role

# Celery's exit code after what it calls an unrecoverable error.
CELERY_BROKE_DOWN = 1


_Command = TypeVar("_Command", bound=Callable[..., Any])


def _role_options(command: _Command) -> _Command:
    """Give *command* the options of every long-running role, as its argument *options*."""
    given = (
        click.option(
            "--grace",
            type=click.FloatRange(0, 86400),
            envvar="SNAPFERRY_GRACE",
            show_envvar=True,
            metavar="SECONDS",
            help="On SIGTERM, let what runs go on for so long; then give it back.  [default: 30]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["auto", "json", "text"], case_sensitive=False),
            envvar="SNAPFERRY_LOG_FORMAT",
            show_envvar=True,
            help="auto is text on a terminal, else JSON.  [default: auto]",
        ),
        click.option(
            "--log-level",
            "--loglevel",
            type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
            envvar="SNAPFERRY_LOG_LEVEL",
            show_envvar=True,
            default="info",
            show_default=True,
            help="What is logged at least.",
        ),
        click.option(
            "--metrics-port",
            type=click.IntRange(1, 65535),
            envvar="SNAPFERRY_METRICS_PORT",
            show_envvar=True,
            metavar="N",
            help="Serve metrics for Prometheus at this port.",
        ),
        click.option(
            "--metrics-address",
            envvar="SNAPFERRY_METRICS_ADDRESS",
            show_envvar=True,
            metavar="HOST",
            help="Address of that port.  [default: 127.0.0.1]",
        ),
    )
    for option in reversed(given):
        command = option(command)
    return command


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@broker_option
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 256), metavar="N", help="Batches at once. [default: cores]"
)
@_role_options
@click.option(
    "--queue",
    "names",
    multiple=True,
    callback=queue_names,
    metavar="NAME",
    help="Serve this queue, as `submit --queue` names it; default is the one of all other jobs. May be repeated."
    "  [default: default]",
)
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(
    broker: str | None,
    concurrency: int | None,
    names: tuple[str, ...],
    celery_options: tuple[str, ...],
    **settings: Any,
) -> None:
    """
    Run a worker: it copies the batches of any job of the fleet.

    A thin wrapper of ``celery -A snapferry.worker worker -Q snapferry.copy``, or
    ``snapferry.copy.NAME`` for the queue NAME; further options are handed to it, as in
    ``snapferry worker -- --autoscale 8,2``.
    """
    from snapferry.workers.app import make_app
    from snapferry.workers.queues import copy_queue

    queues = ",".join(dict.fromkeys(map(copy_queue, names or ("",))))
    _run_worker(make_app, broker, "worker", queues, concurrency, celery_options, settings)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@broker_option
@click.option("-c", "--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, metavar="N")
@_role_options
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def orchestrator(
    broker: str | None, concurrency: int, celery_options: tuple[str, ...], **settings: Any
) -> None:
    """
    Run an orchestrator: it plans jobs and publishes their manifests.

    A thin wrapper of ``celery -A snapferry.orchestrator worker -Q snapferry.plan``. Several
    may run; none is needed by the workers to finish what they have begun.
    """
    from snapferry.orchestrator.app import make_fleet_app
    from snapferry.workers.queues import PLAN_QUEUE

    _run_worker(make_fleet_app, broker, "orchestrator", PLAN_QUEUE, concurrency, celery_options, settings)


def _run_worker(
    make: Callable[[Settings, AccessPolicy], Any],
    broker: str | None,
    role: Role,
    queues: str,
    concurrency: int | None,
    options: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    end_on_sigterm()
    from celery import signals

    from snapferry.stores.opening import prepare
    from snapferry.workers.lifecycle.shutdown import asked
    from snapferry.workers.settings.access import access_policy
    from snapferry.workers.settings.environment import InvalidSettings

    try:
        known = read_settings(broker, **settings)
        app = make(known, access_policy(known, f"the {role}"))
    except InvalidSettings as error:
        usage(str(error))
    # Its processes are forked from here, each time that Celery renews one, and share what is there by then.
    prepare()
    # Workers need to know nothing of each other to start.
    arguments = ["worker", "--queues", queues]
    arguments += ["--hostname", f"{role}@%h", "--loglevel", settings["log_level"]]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    started: list[Any] = []
    signals.worker_init.connect(lambda sender, **_: started.append(sender), weak=False)
    _trace(role)
    with _metrics(app, known, role):
        app.worker_main([*arguments, *options])
    if not started or started[0].exitcode != CELERY_BROKE_DOWN or asked():
        return
    # Celery's consumer can break down when Redis goes away at the wrong moment.
    end_on_sigterm()
    start_again(f"the {role} broke down (see above)")


@contextmanager
def _metrics(app: Any, settings: Settings, role: Role) -> Iterator[None]:
    """Serve the metrics of this process in the block, if that was asked for."""
    if settings.metrics_port is None:
        yield
        return
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
    """Send traces, if OpenTelemetry's variables name where to. They may be set for all that runs on a machine."""
    from snapferry.workers.settings.environment import traces_wanted

    if not traces_wanted():
        return
    from snapferry.workers.telemetry.tracing import NotInstalled, attach

    try:
        attach(role)
    except NotInstalled as error:
        note(str(error))
