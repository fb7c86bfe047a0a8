"""The commands that copy: sync, plan and submit."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from snapferry.orchestrator.cli.exit_codes import RUN_AGAIN, fail, interrupt_on_sigterm, note, usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.follow import print_new_job, run
from snapferry.orchestrator.cli.options.common import OUTPUT, Show, receipt_option, show_options
from snapferry.orchestrator.cli.options.copy import copy_options, dry_run_option
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, default_processes
from snapferry.orchestrator.jobs import Jobs
from snapferry.stores.access import TRUSTED
from snapferry.stores.opening import prepare
from snapferry.workers.lifecycle.process_setup import max_in_flight
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings

EXAMPLES: Final = """
Examples:

\b
  Copy a snapshot from a directory to a bucket, on this machine alone:
    snapferry sync --id 8b1f... --from file:///srv/store --to s3://backup/store

\b
  Copy between two S3 services, each with its own endpoint and profile:
    snapferry sync --id 8b1f... \\
      --from 's3://a?endpoint_url=https://s3.one.example&profile=one' \\
      --to   's3://b?endpoint_url=https://s3.two.example&profile=two'

\b
  Mirror every snapshot, by a fleet of workers that share a Redis server:
    snapferry sync --broker redis://queue:6379/0 --from ... --to ... \\
      --all --delete

\b
Exit codes:
  0    done
  1    the job failed, or its receipt could not be written
  2    bad usage or configuration
  130  interrupted
"""

verbose_option = option(
    "--verbose", is_flag=True, section=OUTPUT, help="Show the log of the embedded workers."
)


def interruptible(command: Callable[..., int]) -> Callable[..., int]:
    """Let SIGTERM interrupt *command* as Ctrl-C does, from before its options are read."""

    @wraps(command)
    def interrupting(**given: Any) -> int:
        interrupt_on_sigterm()
        return command(**given)

    return interrupting


@command(epilog=EXAMPLES)
@interruptible
@copy_options
@dry_run_option
@receipt_option
@verbose_option
@show_options
def sync(spec: JobSpec, settings: Settings, receipt_path: str | None, verbose: bool, show: Show) -> int:
    """
    Copy snapshots between two stores.

    Objects that the destination has are not copied again, so running the same
    command again resumes an interrupted copy. Each snapshot is published as soon
    as all of its objects are at the destination.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work.
    """
    if spec.dry_run and receipt_path is not None:
        usage("--receipt cannot be combined with --dryrun")
    check_receipt_path(receipt_path)
    return _sync(spec, settings, show, receipt_path=receipt_path, verbose=verbose)


@command()
@interruptible
@copy_options
@verbose_option
@show_options
def plan(spec: JobSpec, settings: Settings, verbose: bool, show: Show) -> int:
    """
    Show what a sync would copy and cost, without copying.

    An alias of snapferry sync --dryrun. Like a sync, it checks for every object
    whether the destination has it.
    """
    return _sync(spec.model_copy(update={"dry_run": True}), settings, show, verbose=verbose)


@command()
@copy_options
@dry_run_option
@option("-q", "--quiet", is_flag=True, section=OUTPUT, help="Print nothing but the job's id.")
@option("--json", "as_json", is_flag=True, section=OUTPUT, help='Print {"job": ID}.')
def submit(spec: JobSpec, settings: Settings, quiet: bool, as_json: bool) -> int:
    """
    Queue a sync job and print its id.

    The fleet runs the job. Follow it with snapferry watch.
    """
    with on_fleet(settings, advice=RUN_AGAIN) as jobs:
        job_id = jobs.submit(spec)
    print_new_job(job_id, quiet=quiet, as_json=as_json)
    return 0


def _sync(
    spec: JobSpec, settings: Settings, show: Show, *, receipt_path: str | None = None, verbose: bool
) -> int:
    if settings.broker_url is None:
        return _embedded(spec, settings, show, receipt_path=receipt_path, verbose=verbose)
    with on_fleet(settings, advice=RUN_AGAIN) as jobs:
        return run(jobs, jobs.submit(spec), show, receipt_path=receipt_path, on_fleet=True)


def _embedded(
    spec: JobSpec, settings: Settings, show: Show, *, receipt_path: str | None, verbose: bool
) -> int:
    # Libraries that are loaded before the fleet forks are shared by all its processes.
    stores = (spec.source, spec.destination)
    prepare({url.scheme for store in stores for url in (store.parsed, store.parsed_objects) if url})
    processes = default_processes(spec.limits.jobs)
    if (spec.limits.jobs or 0) > (most := processes * max_in_flight()):
        note(
            f"-j {spec.limits.jobs}: limited to {most}, because a process here may open few files (ulimit -n)"
        )
    try:
        with EmbeddedFleet(settings, processes=processes, log_to_stderr=verbose) as fleet:
            jobs = Jobs(fleet.settings, check=False, access=TRUSTED)
            job_id = jobs.submit(fleet.divided(spec))
            return run(jobs, job_id, show, check=fleet.check, receipt_path=receipt_path, on_fleet=False)
    except FleetDied as error:
        fail(f"{error}\nNothing is lost: no manifest was written before its objects. {RUN_AGAIN}")
