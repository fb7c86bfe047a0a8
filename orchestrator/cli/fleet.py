"""The commands that run the roles of a fleet: worker and orchestrator."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from .exits import note, read_settings, usage
from .options import broker_option, queue_names

# Celery's exit code after what it calls an unrecoverable error, and the pause before the next try.
CELERY_BROKE_DOWN = 1
RESTART_S = 5


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@broker_option
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 256), metavar="N", help="Batches at once. [default: cores]"
)
@click.option("--loglevel", default="INFO", show_default=True, help="Celery's log level.")
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
    loglevel: str,
    names: tuple[str, ...],
    celery_options: tuple[str, ...],
) -> None:
    """
    Run a worker: it copies the batches of any job of the fleet.

    A thin wrapper of ``celery -A workers.app worker -Q snapferry.copy``, or
    ``snapferry.copy.NAME`` for the queue NAME; further options are handed to it, as in
    ``snapferry worker -- --autoscale 8,2``.
    """
    from workers.app import make_app
    from workers.queues import copy_queue

    queues = ",".join(dict.fromkeys(map(copy_queue, names or ("",))))
    _run_worker(make_app, broker, "worker", queues, concurrency, loglevel, celery_options)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@broker_option
@click.option("-c", "--concurrency", type=click.IntRange(1, 256), default=2, show_default=True, metavar="N")
@click.option("--loglevel", default="INFO", show_default=True, help="Celery's log level.")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def orchestrator(
    broker: str | None, concurrency: int, loglevel: str, celery_options: tuple[str, ...]
) -> None:
    """
    Run an orchestrator: it plans jobs and publishes their manifests.

    A thin wrapper of ``celery -A orchestrator.app worker -Q snapferry.plan``. Several
    may run; none is needed by the workers to finish what they have begun.
    """
    from workers.queues import PLAN_QUEUE

    from ..app import make_fleet_app

    _run_worker(make_fleet_app, broker, "orchestrator", PLAN_QUEUE, concurrency, loglevel, celery_options)


def _run_worker(
    make: Any,
    broker: str | None,
    role: str,
    queues: str,
    concurrency: int | None,
    loglevel: str,
    options: tuple[str, ...],
) -> None:
    from celery import signals

    from workers.settings import InvalidSettings

    try:
        app = make(read_settings(broker))
    except InvalidSettings as error:
        usage(str(error))
    # Workers need to know nothing of each other to start.
    arguments = ["worker", "--queues", queues]
    arguments += ["--hostname", f"{role}@%h", "--loglevel", loglevel]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    started: list[Any] = []
    signals.worker_init.connect(lambda sender, **_: started.append(sender), weak=False)
    app.worker_main([*arguments, *options])
    if not started or started[0].exitcode != CELERY_BROKE_DOWN:
        return
    # Celery's consumer can break down when Redis goes away at the wrong moment. A new process has no past.
    note(f"the {role} broke down (see above); starting again in {RESTART_S} s")
    time.sleep(RESTART_S)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command again
