"""
The command line: arguments, exit codes, printing. It decides nothing.

Exit codes: 0 done; 1 the job failed; 2 bad usage or configuration, and nothing
was begun; 130 interrupted.

Libraries that only some commands need are imported inside them: ``--help``
should not wait for Celery.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from workers.ledger import JobStatus
    from workers.settings import Settings

    from .jobs import Jobs

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# Celery's exit code after what it calls an unrecoverable error, and the pause before the next try.
CELERY_BROKE_DOWN = 1
RESTART_S = 5

# How long an interrupted sync waits for running copies to let go.
CANCEL_TIMEOUT_S = 10.0

SYNC_EXAMPLES = """
Examples:

\b
  Copy a snapshot from a directory to a bucket, on this machine alone:
    snapferry sync --from file:///srv/store --to s3://backup/store --id 8b1f...

\b
  Between two S3 services, each with its own endpoint and profile:
    snapferry sync --id 8b1f... \\
      --from 's3://a?endpoint_url=https://s3.one.example&profile=one' \\
      --to   's3://b?endpoint_url=https://s3.two.example&profile=two'

\b
  By a fleet of workers that share a Redis server:
    snapferry sync --broker redis://queue:6379/0 --from ... --to ... --id ...

Exit codes: 0 done, 1 the job failed, 2 bad usage or configuration, 130 interrupted.
"""

_broker = click.option(
    "--broker",
    metavar="URL",
    envvar="SNAPFERRY_BROKER_URL",
    show_envvar=True,
    help="Redis server of the fleet, as in redis://host:6379/0.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """
    Copy snapshots between content-addressed stores.

    A snapshot is a manifest and the objects that it names by BLAKE3 checksum.
    Stores are directories or S3 buckets in the format of snapdir. The manifest
    is written last, after every object was seen at the destination.
    """


@cli.command(epilog=SYNC_EXAMPLES)
@click.option(
    "--from",
    "source",
    required=True,
    metavar="URL",
    envvar="SNAPDIR_STORE",
    show_envvar=True,
    help="Source store.",
)
@click.option("--to", "destination", required=True, metavar="URL", help="Destination store.")
@click.option("--id", "snapshot", required=True, metavar="ID", help="Snapshot to copy: 64 hex digits.")
@click.option(
    "--from-objects", metavar="URL", help="Pool that holds the source's objects, if not --from itself."
)
@click.option("--to-objects", metavar="URL", help="Pool that takes the objects, if not --to itself.")
@click.option(
    "-j",
    "--jobs",
    "in_flight",
    type=click.IntRange(0, 1024),
    default=0,
    envvar="SNAPDIR_JOBS",
    show_envvar=True,
    metavar="N",
    help="Objects in flight at once: in all on this machine, or per batch on a fleet. 0 leaves it to the stores.",
)
@click.option("--dryrun", is_flag=True, help="Say what would be copied; write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option(
    "--no-progress", is_flag=True, envvar="SNAPDIR_NO_PROGRESS", show_envvar=True, help="Show no progress."
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours and live bar: on a terminal, always, or never.",
)
@click.option("--verbose", is_flag=True, help="Show the embedded workers' log.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on standard output at the end."
)
@_broker
def sync(
    source: str,
    destination: str,
    snapshot: str,
    from_objects: str | None,
    to_objects: str | None,
    in_flight: int,
    dryrun: bool,
    quiet: bool,
    no_progress: bool,
    color: str,
    verbose: bool,
    as_json: bool,
    broker: str | None,
) -> None:
    """
    Copy one snapshot from a store to another.

    What the destination has is not copied again, so the same command resumes
    after any interruption. Without a broker the work is done by worker
    processes on this machine that end with the command; with one, by the fleet.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    settings = _settings(broker)
    from stores.address import parse_address
    from stores.errors import InvalidAddress, InvalidStoreURL
    from stores.urls import opener, parse_url

    from .jobs import Jobs, store_pair

    try:
        parse_address(snapshot)
        here, there = store_pair(source, destination, from_objects, to_objects)
    except InvalidAddress as error:
        _usage(f"--id: {error}")
    except InvalidStoreURL as error:
        _usage(str(error))

    def run(jobs: Jobs, concurrency: int | None, check: Any) -> int:
        job_id = jobs.submit(here, there, snapshot, concurrency=concurrency, dry_run=dryrun)
        status = _follow(jobs, job_id, check, quiet=quiet or no_progress or as_json, color=color)
        return _report(jobs, status, dryrun=dryrun, quiet=quiet, as_json=as_json)

    if settings.broker_url is not None:
        sys.exit(_on_fleet(settings, lambda jobs: run(jobs, in_flight or None, lambda: None)))

    # Importing what the stores need before the fleet forks lets all its processes share it.
    for reference in (here, there):
        for url in filter(None, (reference.url, reference.objects_url)):
            opener(parse_url(url).scheme)
    from .embedded import EmbeddedFleet, FleetDied, default_processes

    processes = default_processes(in_flight or None)
    try:
        with EmbeddedFleet(settings, processes=processes, log_to_stderr=verbose) as fleet:
            per_batch = -(-in_flight // processes) if in_flight else None
            code = run(Jobs(fleet.settings, check=False), per_batch, fleet.check)
    except FleetDied as error:
        _fail(
            f"{error}\nNothing was lost: no manifest was written early. Run the same command again to resume."
        )
    sys.exit(code)


@cli.command(name="ls")
@click.argument("store", metavar="URL")
def list_snapshots(store: str) -> None:
    """List the snapshot ids of a store, one a line, sorted."""
    from stores.errors import InvalidStoreURL, StoreError
    from stores.urls import open_store, parse_url
    from workers.settings import store_options

    try:
        url = parse_url(store).with_defaults(**store_options("from"))
        for snapshot in open_store(str(url)).list_manifest_ids():
            click.echo(snapshot)
    except InvalidStoreURL as error:
        _usage(str(error))
    except StoreError as error:
        _fail(f"{type(error).__name__}: {error}")


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@_broker
@click.option(
    "-c", "--concurrency", type=click.IntRange(1, 256), metavar="N", help="Batches at once. [default: cores]"
)
@click.option("--loglevel", default="INFO", show_default=True, help="Celery's log level.")
@click.argument("celery_options", nargs=-1, type=click.UNPROCESSED)
def worker(
    broker: str | None, concurrency: int | None, loglevel: str, celery_options: tuple[str, ...]
) -> None:
    """
    Run a worker: it copies the batches of any job of the fleet.

    A thin wrapper of ``celery -A workers.app worker -Q snapferry.copy``;
    further options are handed to it, as in ``snapferry worker -- --autoscale 8,2``.
    """
    from workers.app import COPY_QUEUE, make_app

    _run_worker(make_app, broker, "worker", COPY_QUEUE, concurrency, loglevel, celery_options)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@_broker
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
    from workers.app import PLAN_QUEUE

    from .app import make_fleet_app

    _run_worker(make_fleet_app, broker, "orchestrator", PLAN_QUEUE, concurrency, loglevel, celery_options)


@cli.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    click.echo(f"snapferry {version_of('snapferry')}")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the completion script of a shell.

    \b
      bash:  eval "$(snapferry completion bash)"        in ~/.bashrc
      zsh:   eval "$(snapferry completion zsh)"         in ~/.zshrc
      fish:  snapferry completion fish | source         in config.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # click.Choice lets nothing else through
    click.echo(found(cli, {}, "snapferry", "_SNAPFERRY_COMPLETE").source())


def main() -> None:
    """Run the command line; the console script. Bad usage is one line and exit code 2."""
    _open_standard_streams()
    try:
        sys.exit(cli.main(prog_name="snapferry", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(EXIT_USAGE) from None
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "snapferry"
        _usage(f"{error.format_message()} See: {command} --help")
    except click.ClickException as error:
        _usage(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        # What stores and brokers raise is translated long before; this is the output that cannot be written.
        _fail(f"the output cannot be written: {error.strerror or error}")


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed: the next file opened would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)
            # Celery asks for the original streams as well.
            vars(sys).update({name: stream, f"__{name}__": stream})


def _settings(broker: str | None) -> Settings:
    from workers.settings import InvalidSettings, Settings

    try:
        return Settings.from_environment(broker_url=broker)
    except InvalidSettings as error:
        _usage(str(error))


def _on_fleet(settings: Settings, use: Callable[[Jobs], int]) -> int:
    """Return what *use* makes of the fleet's jobs; a broker that cannot be used is a line and an exit code."""
    from workers.connection import BrokerUnavailable
    from workers.ledger import UnknownJob

    from .jobs import Jobs

    try:
        jobs = Jobs(settings)
    except BrokerUnavailable as error:
        _usage(str(error))
    try:
        return use(jobs)
    except BrokerUnavailable as error:
        _fail(str(error))
    except UnknownJob as error:
        _fail(
            f"the record of job {error} is gone: the broker lost its data. Run the same command again to resume."
        )


def _follow(jobs: Jobs, job_id: str, check: Any, *, quiet: bool, color: str) -> JobStatus:
    """Show the job until it ends. Ctrl-C cancels it and waits a little for running copies to let go."""
    from .progress import view

    shown, context = view(quiet=quiet, color=color)

    try:
        with context:
            return jobs.wait(job_id, shown.show, check=check)
    except KeyboardInterrupt:
        return _cancel(jobs, job_id)


def _cancel(jobs: Jobs, job_id: str) -> JobStatus:
    """Cancel the job of an interrupted command; return its status if it ended on its own just then."""
    from workers.connection import BrokerUnavailable
    from workers.ledger import State, UnknownJob

    ended: State | None = None
    with suppress(KeyboardInterrupt, BrokerUnavailable, UnknownJob):
        jobs.cancel(job_id)
        status = jobs.wait(job_id, timeout_s=CANCEL_TIMEOUT_S)
        ended = status.state
        if ended in (State.DONE, State.FAILED):
            return status
    words = (
        "No manifest was written."
        if ended is State.CANCELLED
        else f"Job {job_id} may still be coming to its end."
    )
    click.echo(
        f"snapferry: interrupted. What was copied stays, nothing is half-visible. {words}"
        " Run the same command again to resume.",
        err=True,
    )
    raise SystemExit(EXIT_INTERRUPTED)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _report(jobs: Jobs, status: JobStatus, *, dryrun: bool, quiet: bool, as_json: bool) -> int:
    """Print how the job ended; return the exit code."""
    from workers.ledger import State

    from . import report

    failures = jobs.failures(status.job_id) if status.failed else []
    if as_json:
        click.echo(json.dumps(report.document(status, failures), indent=2))
    if status.state is State.DONE:
        if not quiet and not as_json:
            click.echo(report.dry_run_words(status) if dryrun else report.done_words(status))
        return 0
    for line in report.failure_lines(failures, status.failed):
        click.echo(line, err=True)
    click.echo(f"snapferry: {status.state}: {status.error or 'the job was cancelled'}", err=True)
    return EXIT_FAILED


def _run_worker(
    make: Any,
    broker: str | None,
    role: str,
    queue: str,
    concurrency: int | None,
    loglevel: str,
    options: tuple[str, ...],
) -> None:
    from celery import signals

    from workers.settings import InvalidSettings

    try:
        app = make(_settings(broker))
    except InvalidSettings as error:
        _usage(str(error))
    # Workers need to know nothing of each other to start.
    arguments = ["worker", "--queues", queue]
    arguments += ["--hostname", f"{role}@%h", "--loglevel", loglevel]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    started: list[Any] = []
    signals.worker_init.connect(lambda sender, **_: started.append(sender), weak=False)
    app.worker_main([*arguments, *options])
    if not started or started[0].exitcode != CELERY_BROKE_DOWN:
        return
    # Celery's consumer can break down when Redis goes away at the wrong moment. A new process has no past.
    click.echo(f"snapferry: the {role} broke down (see above); starting again in {RESTART_S} s", err=True)
    time.sleep(RESTART_S)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command again


def _usage(message: str) -> NoReturn:
    click.echo(f"snapferry: {message}", err=True)
    raise SystemExit(EXIT_USAGE)


def _fail(message: str) -> NoReturn:
    click.echo(f"snapferry: {message}", err=True)
    raise SystemExit(EXIT_FAILED)
