"""The commands that look at jobs: jobs, status, watch, failures and receipt."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

import click

from snapferry.orchestrator.cli.exit_codes import fail, interrupt_on_sigterm, note, on_fleet, read_settings
from snapferry.orchestrator.cli.follow import check_receipt_path
from snapferry.orchestrator.cli.follow import watch as watch_job
from snapferry.orchestrator.cli.options import (
    Show,
    about_a_job,
    broker_option,
    json_option,
    receipt_option,
    show_options,
)
from snapferry.orchestrator.cli.table import print_table

if TYPE_CHECKING:
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.orchestrator.reporting.failures import DeadLetter

STATES = ("queued", "planning", "copying", "committing", "done", "failed", "cancelled")

# A job of at most so many snapshots shows each of them unasked.
FEW_SNAPSHOTS = 20


@click.command(name="jobs")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="The latest N alone.",
)
@click.option("--state", type=click.Choice(STATES), help="Those in this state alone.")
@json_option
@broker_option
def list_jobs(limit: int, state: str | None, as_json: bool, broker: str | None) -> int:
    """List the fleet's jobs, the latest first."""
    settings = read_settings(broker)
    with on_fleet(settings, lost="") as jobs:
        from snapferry.orchestrator.reporting import documents, report
        from snapferry.workers.ledger import State

        found = jobs.list(limit=limit, state=State(state) if state else None)
    if as_json:
        click.echo(json.dumps([documents.status_document(status) for status in found], indent=2))
    elif found:
        print_table(
            report.JOBS_HEAD,
            map(report.job_row, found),
            right=frozenset({"SNAPSHOTS", "OBJECTS", "BYTES"}),
            fold=frozenset(report.JOBS_HEAD[-1:]),
        )
    else:
        click.echo(f"no job is {state}" if state else "there are no jobs")
    return 0


@click.command()
@about_a_job
@click.option(
    "--snapshots", is_flag=True, help=f"Show each snapshot, also of more than {FEW_SNAPSHOTS}, and in JSON."
)
@json_option
def status(jobs: Jobs, job_id: str, snapshots: bool, as_json: bool) -> int:
    """Show where a job stands. JOB is its id, or as much of its beginning as no other job has."""
    from snapferry.orchestrator.reporting import documents, report

    found, estimate = jobs.status(job_id), jobs.estimate(job_id)
    store_limits = jobs.store_limits(job_id)
    unreached = [] if found.state.final else jobs.unreached(job_id)
    if as_json:
        document = documents.status_document(found, estimate)
        document["unreached"] = [documents.trouble_document(trouble) for trouble in unreached]
        document["store_limits"] = {
            side: documents.limit_document(limits) for side, limits in store_limits.items()
        }
        if snapshots:
            document["per_snapshot"] = [documents.snapshot_document(row) for row in jobs.snapshots(job_id)]
        click.echo(json.dumps(document, indent=2))
        return 0
    for line in report.status_lines(found, jobs.failed_by_class(job_id), store_limits, unreached):
        click.echo(line)
    if found.dry_run and estimate:
        for line in report.dry_run_lines(found, estimate):
            click.echo(line)
    elif snapshots or found.snapshots_total <= FEW_SNAPSHOTS:
        rows = [report.snapshot_row(row) for row in jobs.snapshots(job_id)]
        if rows:
            click.echo()
            print_table(
                report.SNAPSHOTS_HEAD,
                rows,
                right=frozenset(report.SNAPSHOTS_HEAD[2:-1]),
                fold=frozenset({"SNAPSHOT", "REASON"}),
            )
    return 0


@click.command()
@about_a_job
@receipt_option
@show_options
def watch(jobs: Jobs, job_id: str, receipt_path: str | None, show: Show) -> int:
    """
    Follow a job until it ends, and say how it ended.

    Exit codes: 0 the job is done, 1 it failed or was cancelled, 130 interrupted. Ctrl-C ends the watching;
    the job goes on.
    """
    interrupt_on_sigterm()
    check_receipt_path(receipt_path)
    return watch_job(jobs, job_id, show, receipt_path=receipt_path)


@click.command()
@about_a_job
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N alone.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document a line, one for each object.")
def failures(jobs: Jobs, job_id: str, limit: int | None, as_json: bool) -> int:
    """List the objects that failed in a job: why, and which snapshots and paths wait for them."""
    from snapferry.orchestrator.planning.prepare import SourceChanged
    from snapferry.orchestrator.reporting import documents, report
    from snapferry.stores.errors import StoreError
    from snapferry.workers.settings.environment import InvalidSettings

    found = jobs.status(job_id)
    if not as_json:
        click.echo(report.failures_head(found, jobs.failed_by_class(job_id)))

    def show(letter: DeadLetter, *, places: bool) -> None:
        if as_json:
            click.echo(json.dumps(documents.letter_document(letter, places=places)))
        else:
            for line in report.letter_lines(letter):
                click.echo(line)

    shown = 0
    try:
        for letter in islice(jobs.failures(job_id), limit):
            show(letter, places=True)
            shown += 1
    except (StoreError, SourceChanged, InvalidSettings) as error:
        if shown:
            fail(f"the list ends here: {error}")
        note(f"which paths wait for them cannot be told: {error}")
        for letter in islice(jobs.failures(job_id, places=False), limit):
            show(letter, places=False)
            shown += 1
    if not as_json and found.failed > shown:
        click.echo(f"and {found.failed - shown:,} more")
    return 0


@click.command()
@about_a_job
def receipt(jobs: Jobs, job_id: str) -> int:
    """Print the receipt of a job: what it did, and how that was verified, in JSON."""
    document = jobs.receipt(job_id)
    click.echo(json.dumps(document, indent=2))
    if not document["final"]:
        note(f"job {job_id} has not ended ({document['state']}): this is how far it came")
    return 0
