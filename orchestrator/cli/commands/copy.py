"""The commands that copy: sync, submit and plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from snapferry.orchestrator.cli.exit_codes import (
    SUBMIT_AGAIN,
    fail,
    interrupt_on_sigterm,
    note,
    on_fleet,
    read_settings,
    usage,
)
from snapferry.orchestrator.cli.follow import check_receipt_path, run
from snapferry.orchestrator.cli.options import Copy, Show, copy_options, receipt_option, show_options
from snapferry.orchestrator.cli.snapshot_ids import chosen_ids
from snapferry.orchestrator.cli.store_names import store_url

if TYPE_CHECKING:
    from snapferry.workers.messages import Budget, Prune, StoreRef
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


@click.command(epilog=EXAMPLES)
@copy_options
@click.option("--dryrun", is_flag=True, help="Say what would be done; write nothing.")
@receipt_option
@click.option("--verbose", is_flag=True, help="Show the embedded workers' log.")
@show_options
def sync(copy: Copy, dryrun: bool, receipt_path: str | None, verbose: bool, show: Show) -> int:
    """
    Copy snapshots from a store to another.

    What the destination has is not copied again, so the same command resumes
    after any interruption. Each snapshot is published as soon as its objects are
    there. Without a broker the work is done by worker processes on this machine
    that end with the command; with one, by the fleet.
    """
    if dryrun and receipt_path is not None:
        usage("--receipt: a dry run has none")
    return _sync(copy, show, dryrun=dryrun, receipt_path=receipt_path, verbose=verbose)


@click.command()
@copy_options
@click.option("--verbose", is_flag=True, help="Show the embedded workers' log.")
@show_options
def plan(copy: Copy, verbose: bool, show: Show) -> int:
    """
    Say what a sync would do, and what it would cost; write nothing.

    The same as snapferry sync --dryrun: the destination is asked for every object.
    """
    return _sync(copy, show, dryrun=True, receipt_path=None, verbose=verbose)


@click.command()
@copy_options
@click.option("--dryrun", is_flag=True, help="Say what would be done; write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print the job's id alone.")
@click.option("--json", "as_json", is_flag=True, help='Print {"job": ID}.')
def submit(copy: Copy, dryrun: bool, quiet: bool, as_json: bool) -> int:
    """
    Queue what sync would do, print the job's id, and go.

    The fleet carries the job on. Follow it with snapferry watch.
    """
    settings = read_settings(copy.broker, copy.prices)
    submission = _submission(copy, settings, dryrun=dryrun)
    with on_fleet(settings, lost=SUBMIT_AGAIN) as jobs:
        job_id = jobs.submit(**submission, concurrency=copy.in_flight or None)
    print_new_job(job_id, quiet=quiet, as_json=as_json)
    return 0


def print_new_job(job_id: str, *, quiet: bool, as_json: bool) -> None:
    """Print the id of a job that was queued, and how to follow it."""
    click.echo(json.dumps({"job": job_id}) if as_json else job_id)
    if not quiet:
        note(f"follow it: snapferry watch {job_id}")


def _sync(copy: Copy, show: Show, *, dryrun: bool, receipt_path: str | None, verbose: bool) -> int:
    interrupt_on_sigterm()
    settings = read_settings(copy.broker, copy.prices)
    submission = _submission(copy, settings, dryrun=dryrun)
    check_receipt_path(receipt_path)
    if settings.broker_url is not None:
        with on_fleet(settings, lost=SUBMIT_AGAIN) as jobs:
            job_id = jobs.submit(**submission, concurrency=copy.in_flight or None)
            return run(jobs, job_id, show, receipt_path=receipt_path, on_fleet=True)
    return _embedded(settings, submission, copy.in_flight, show, receipt_path=receipt_path, verbose=verbose)


def _embedded(
    settings: Settings,
    submission: dict[str, Any],
    in_flight: int,
    show: Show,
    *,
    receipt_path: str | None,
    verbose: bool,
) -> int:
    from snapferry.stores.access import TRUSTED
    from snapferry.stores.urls import parse_url, prepare

    # What the stores need before the fleet forks is shared by all its processes.
    urls = [
        url
        for reference in (submission["source"], submission["destination"])
        for url in (reference.url, reference.objects_url)
        if url
    ]
    prepare({parse_url(url).scheme for url in urls})
    from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, default_processes
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.workers.lifecycle.process_setup import most_at_once

    processes = default_processes(in_flight or None)
    if in_flight > (most := processes * most_at_once()):
        note(
            f"-j {in_flight}: at most {most} objects are in flight at once, for a process here may open few files"
            " (ulimit -n)"
        )
        in_flight = most
    try:
        with EmbeddedFleet(settings, processes=processes, log_to_stderr=verbose) as fleet:
            jobs = Jobs(fleet.settings, check=False, access=TRUSTED)
            job_id = jobs.submit(**submission, concurrency=-(-in_flight // processes) if in_flight else None)
            return run(jobs, job_id, show, check=fleet.check, receipt_path=receipt_path, on_fleet=False)
    except FleetDied as error:
        fail(
            f"{error}\nNothing was lost: no manifest was written early. Run the same command again to resume."
        )


def _submission(copy: Copy, settings: Settings, *, dryrun: bool) -> dict[str, Any]:
    """Return what `Jobs.submit` is to be given; what cannot be meant ends the command."""
    from snapferry.orchestrator.jobs import store_pair
    from snapferry.stores.errors import InvalidStoreURL
    from snapferry.workers.messages import Limits, Order
    from snapferry.workers.queues import Priority

    ids = chosen_ids(copy)
    try:
        here, there = store_pair(
            store_url(settings, copy.source),
            store_url(settings, copy.destination),
            copy.from_objects,
            copy.to_objects,
        )
    except InvalidStoreURL as error:
        usage(str(error))
    return {
        "source": here,
        "destination": there,
        "snapshot_ids": ids,
        "order": Order(copy.order) if copy.order else None,
        "trust_manifest": copy.trust_manifest,
        # Who wants everything deleted that an empty source does not have, means that it is empty.
        "allow_empty_source": copy.allow_empty_source or copy.force_delete,
        "prune": _prune(copy),
        "budget": _budget(copy, settings, (here, there)),
        "dry_run": dryrun,
        "priority": Priority(copy.priority),
        "queue": copy.queue,
        "patience": copy.patience,
        "limits": Limits(
            rate=copy.limit_rate, requests=copy.max_requests or None, jobs=copy.in_flight or None
        ),
    }


def _prune(copy: Copy) -> Prune | None:
    from snapferry.workers.messages import Prune

    if copy.delete:
        return Prune(max_delete=copy.max_delete, force=copy.force_delete)
    if copy.max_delete is not None or copy.force_delete:
        usage(f"{'--force-delete' if copy.force_delete else '--max-delete'} goes with --delete")
    return None


def _budget(copy: Copy, settings: Settings, stores: tuple[StoreRef, StoreRef]) -> Budget:
    from snapferry.orchestrator.planning.prices import InvalidPrices, read_prices
    from snapferry.workers.messages import Budget

    if settings.prices is None:
        if copy.max_cost is not None:
            usage("--max-cost needs prices: give --prices FILE, or set SNAPFERRY_PRICES")
        return Budget(max_objects=copy.max_objects, max_bytes=copy.max_bytes)
    try:
        table = read_prices(settings.prices)
    except InvalidPrices as error:
        usage(str(error))
    for reference in stores:
        url = reference.url
        # A store without a price would count as free, and the limit for nothing.
        if copy.max_cost is not None and url.startswith("s3://") and not table.has_price_for(url):
            usage(f"--max-cost: price table {settings.prices} has no price for {url.split('?', 1)[0]}")
    return Budget(
        max_objects=copy.max_objects,
        max_bytes=copy.max_bytes,
        max_cost=copy.max_cost,
        currency=table.currency,
        prices=table.prices,
    )
