"""Run the roles of a fleet: worker and orchestrator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from celery import signals
from celery.bin.base import CLIContext
from celery.bin.worker import worker as celery_worker

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.cli.exit_codes import end_on_sigterm, note, restart, usage
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.recovery import keeper
from snapferry.stores.access import AccessPolicy
from snapferry.stores.opening import prepare
from snapferry.workers.app import make_app
from snapferry.workers.extras import NotInstalled
from snapferry.workers.lifecycle.shutdown import requested
from snapferry.workers.queues import PLAN_QUEUE, copy_queue
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import InvalidSettings, Settings, traces_wanted
from snapferry.workers.telemetry.metrics.catalogue import Role

# Celery's exit code after what it calls an unrecoverable error.
CELERY_BROKE_DOWN: Final = 1


def worker(
    broker: str | None,
    concurrency: int | None,
    node: str | None,
    names: tuple[str, ...],
    celery_options: tuple[str, ...],
    **settings: Any,
) -> None:
    queues = ",".join(dict.fromkeys(map(copy_queue, names or ("",))))
    _run_role(make_app, broker, "worker", node, queues, concurrency, celery_options, settings)


def orchestrator(
    broker: str | None,
    concurrency: int,
    node: str | None,
    export_jobs: str | None,
    celery_options: tuple[str, ...],
    **settings: Any,
) -> None:
    def make(known: Settings, access: AccessPolicy) -> Any:
        app = make_fleet_app(known, access)
        if export_jobs is not None:
            keeper.attach(app, known, export_jobs)
        return app

    if export_jobs is not None and not Path(export_jobs).absolute().parent.is_dir():
        usage(f"--export-jobs {export_jobs}: its directory does not exist")
    _run_role(make, broker, "orchestrator", node, PLAN_QUEUE, concurrency, celery_options, settings)


def _run_role(
    make: Callable[[Settings, AccessPolicy], Any],
    broker: str | None,
    role: Role,
    node: str | None,
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
    name = node or role
    # Celery takes a name without @ for that of the machine.
    hostname = name if "@" in name else f"{name}@%h"
    arguments = ["--queues", queues, "--hostname", hostname, "--loglevel", settings["log_level"]]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    started: list[Any] = []
    signals.worker_init.connect(lambda sender, **_: started.append(sender), weak=False)
    _trace(role)
    with _metrics(app, known, role):
        _run_celery(app, [*arguments, *options])
    if not started or started[0].exitcode != CELERY_BROKE_DOWN or requested():
        return
    # Celery's consumer can break down if Redis goes away at the wrong moment.
    end_on_sigterm()
    restart(f"the {role} broke down (see the log above)")


def _run_celery(app: Any, arguments: list[str]) -> None:
    """
    Run Celery's command `worker` until it ends.

    `app.worker_main` would import Celery's other commands, Flower's and their shell as well: a quarter of all imports.
    """
    context = CLIContext(app=app, no_color=False, workdir=None)
    try:
        celery_worker.main(arguments, prog_name="celery worker", obj=context, standalone_mode=False)
    except click.NoSuchOption as error:
        # It may be a misspelt option of this command, which Celery does not know.
        ctx = click.get_current_context()
        options = [name for each in (*ctx.command.params, *celery_worker.params) for name in each.opts]
        raise click.NoSuchOption(error.option_name, possibilities=options, ctx=ctx) from None


@contextmanager
def _metrics(app: Any, settings: Settings, role: Role) -> Iterator[None]:
    """Serve the metrics of this process in the block, if a port is set."""
    if settings.metrics_port is None:
        yield
        return
    # Counting costs time and memory, so the library is loaded only if metrics are wanted.
    from snapferry.orchestrator.reporting.fleet_metrics import FleetCollector
    from snapferry.workers.telemetry.metrics.exporter import CannotServe, serving
    from snapferry.workers.telemetry.metrics.orchestrators import OrchestratorCount

    address, port = settings.metrics_address, settings.metrics_port
    tasks = sorted(name for name in app.tasks if name.startswith("snapferry."))
    assert settings.broker_url is not None  # the app refuses settings without a broker
    collectors: list[Any] = [OrchestratorCount(settings.broker_url)]
    if role == "orchestrator":
        collectors.append(FleetCollector(app, settings))
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
    from snapferry.workers.telemetry.tracing import attach

    try:
        attach(role)
    except NotInstalled as error:
        note(str(error))
