"""The commands that copy: sync, submit and plan."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from snapferry.orchestrator.cli.exit_codes import (
    SUBMIT_AGAIN,
    fail,
    interrupt_on_sigterm,
    note,
    on_fleet,
    usage,
)
from snapferry.orchestrator.cli.follow import check_receipt_path, run
from snapferry.orchestrator.cli.options import (
    Show,
    copy_options,
    dry_run_option,
    receipt_option,
    show_options,
)

if TYPE_CHECKING:
    from snapferry.workers.messages import JobSpec
    from snapferry.workers.settings.environment import Settings

EXAMPLES = """
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
  Every snapshot, as a mirror, by a fleet of workers that share a Redis server:
    snapferry sync --broker redis://queue:6379/0 --from ... --to ... --all --delete

Exit codes: 0 done, 1 the job failed or its receipt could not be written,
2 bad usage or configuration, 130 interrupted.
"""


def interruptible(command: Callable[..., int]) -> Callable[..., int]:
    """Let SIGTERM interrupt *command* as Ctrl-C does, from before its options are read."""

    @functools.wraps(command)
    def interrupting(**given: Any) -> int:
        interrupt_on_sigterm()
        return command(**given)

    return interrupting


@click.command(epilog=EXAMPLES)
@interruptible
@copy_options
@dry_run_option
@receipt_option
@click.option("--verbose", is_flag=True, help="Show the embedded workers' log.")
@show_options
def sync(spec: JobSpec, settings: Settings, receipt_path: str | None, verbose: bool, show: Show) -> int:
    """
    Copy snapshots from a store to another.

    What the destination has is not copied again, so the same command resumes
    after any interruption. Each snapshot is published as soon as its objects are
    there. Without a broker the work is done by worker processes on this machine
    that end with the command; with one, by the fleet.
    """
    if spec.dry_run and receipt_path is not None:
        usage("--receipt: a dry run has none")
    check_receipt_path(receipt_path)
    return _sync(spec, settings, show, receipt_path=receipt_path, verbose=verbose)


@click.command()
@interruptible
@copy_options
@click.option("--verbose", is_flag=True, help="Show the embedded workers' log.")
@show_options
def plan(spec: JobSpec, settings: Settings, verbose: bool, show: Show) -> int:
    """
    Say what a sync would do, and what it would cost; write nothing.

    The same as snapferry sync --dryrun: the destination is asked for every object.
    """
    return _sync(spec.model_copy(update={"dry_run": True}), settings, show, verbose=verbose)


@click.command()
@copy_options
@dry_run_option
@click.option("-q", "--quiet", is_flag=True, help="Print the job's id alone.")
@click.option("--json", "as_json", is_flag=True, help='Print {"job": ID}.')
def submit(spec: JobSpec, settings: Settings, quiet: bool, as_json: bool) -> int:
    """
    Queue what sync would do, print the job's id, and go.

    The fleet carries the job on. Follow it with snapferry watch.
    """
    with on_fleet(settings, lost=SUBMIT_AGAIN) as jobs:
        job_id = jobs.submit(spec)
    print_new_job(job_id, quiet=quiet, as_json=as_json)
    return 0


def print_new_job(job_id: str, *, quiet: bool, as_json: bool) -> None:
    """Print the id of a job that was queued, and how to follow it."""
    click.echo(json.dumps({"job": job_id}) if as_json else job_id)
    if not quiet:
        note(f"follow it: snapferry watch {job_id}")


def _sync(
    spec: JobSpec, settings: Settings, show: Show, *, receipt_path: str | None = None, verbose: bool
) -> int:
    if settings.broker_url is None:
        return _embedded(spec, settings, show, receipt_path=receipt_path, verbose=verbose)
    with on_fleet(settings, lost=SUBMIT_AGAIN) as jobs:
        return run(jobs, jobs.submit(spec), show, receipt_path=receipt_path, on_fleet=True)


def _embedded(
    spec: JobSpec, settings: Settings, show: Show, *, receipt_path: str | None, verbose: bool
) -> int:
    from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, default_processes
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.stores.access import TRUSTED
    from snapferry.stores.opening import prepare
    from snapferry.workers.lifecycle.process_setup import most_at_once

    # What the stores need before the fleet forks is shared by all its processes.
    stores = (spec.source, spec.destination)
    prepare({url.scheme for store in stores for url in (store.parsed, store.parsed_objects) if url})
    processes = default_processes(spec.limits.jobs)
    if (spec.limits.jobs or 0) > (most := processes * most_at_once()):
        note(
            f"-j {spec.limits.jobs}: at most {most} objects are in flight at once, for a process here may open few"
            " files (ulimit -n)"
        )
    try:
        with EmbeddedFleet(settings, processes=processes, log_to_stderr=verbose) as fleet:
            jobs = Jobs(fleet.settings, check=False, access=TRUSTED)
            job_id = jobs.submit(fleet.divided(spec))
            return run(jobs, job_id, show, check=fleet.check, receipt_path=receipt_path, on_fleet=False)
    except FleetDied as error:
        fail(
            f"{error}\nNothing was lost: no manifest was written early. Run the same command again to resume."
        )
