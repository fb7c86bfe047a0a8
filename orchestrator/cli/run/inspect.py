"""Show jobs: the bodies of jobs, status, watch, failures and receipt."""

from __future__ import annotations

import json
from itertools import islice

import click

from snapferry.orchestrator.cli.command_line import with_fleet
from snapferry.orchestrator.cli.exit_codes import fail, interrupt_on_sigterm, note
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.follow import watch as watch_job
from snapferry.orchestrator.cli.inputs.job import with_job
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.options.common import FEW_SNAPSHOTS
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.cli.table import print_table
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.reporting import documents
from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.orchestrator.reporting.text.dry_run import dry_run_lines
from snapferry.orchestrator.reporting.text.failures import (
    IMPORTED,
    failures_head,
    letter_lines,
    manifest_line,
)
from snapferry.orchestrator.reporting.text.status import (
    JOBS_HEAD,
    SNAPSHOTS_HEAD,
    job_row,
    snapshot_row,
    status_lines,
)
from snapferry.stores.errors import StoreError
from snapferry.workers.settings.environment import InvalidSettings

# A job of at most this many snapshots is shown with all of them.


def list_jobs(limit: int, state: str | None, as_json: bool, broker: str | None) -> int:
    settings = read_settings(broker)
    with on_fleet(settings, advice="") as jobs:
        found = jobs.list(limit=limit, state=state)
        lacks = next(filter(None, map(jobs.lacks, found)), None)
    if as_json:
        click.echo(json.dumps([documents.status_document(status) for status in found], indent=2))
    elif found:
        print_table(
            JOBS_HEAD,
            map(job_row, found),
            right=frozenset({"SNAPSHOTS", "DONE", "BYTES"}),
            fold=frozenset(JOBS_HEAD[-1:]),
        )
    else:
        click.echo(f"no job is {state}" if state else "no jobs")
    if lacks:
        note(f"no {lacks} is running, so jobs wait. Start one: snapferry {lacks}")
    return 0


@with_job
def status(jobs: Jobs, job_id: str, snapshots: bool, as_json: bool) -> int:
    found, estimate = jobs.status(job_id), jobs.estimate(job_id)
    store_limits = jobs.store_limits(job_id)
    unreached = [] if found.state.final else jobs.unreached(job_id)
    lacks = jobs.lacks(found)
    advice = with_fleet(advise(found, lacking=lacks))
    if as_json:
        document = documents.status_document(found, estimate, advice=advice)
        document["lacks"] = lacks
        document["unreached"] = [documents.trouble_document(trouble) for trouble in unreached]
        document["store_limits"] = {
            side: documents.limit_document(limits) for side, limits in store_limits.items()
        }
        if snapshots:
            document["per_snapshot"] = [documents.snapshot_document(row) for row in jobs.snapshots(job_id)]
        click.echo(json.dumps(document, indent=2))
        return 0
    for line in status_lines(found, jobs.failed_by_class(job_id), store_limits, unreached, lacks):
        click.echo(line)
    if found.dry_run and estimate:
        for line in dry_run_lines(found, estimate):
            click.echo(line)
    elif snapshots or found.snapshots_total <= FEW_SNAPSHOTS:
        rows = [snapshot_row(row) for row in jobs.snapshots(job_id)]
        if rows:
            click.echo()
            print_table(
                SNAPSHOTS_HEAD,
                rows,
                right=frozenset(SNAPSHOTS_HEAD[2:-1]),
                fold=frozenset({"SNAPSHOT", "REASON"}),
            )
    if advice:
        click.echo(f"\n{advice.text}")
    return 0


@with_job
@with_show
def watch(jobs: Jobs, job_id: str, receipt_path: str | None, show: Show) -> int:
    interrupt_on_sigterm()
    check_receipt_path(receipt_path)
    return watch_job(jobs, job_id, show, receipt_path=receipt_path)


@with_job
def failures(jobs: Jobs, job_id: str, limit: int | None, as_json: bool) -> int:
    found = jobs.status(job_id)
    if not as_json:
        click.echo(failures_head(found, jobs.failed_by_class(job_id)))

    def show(letter: DeadLetter, *, places: bool) -> None:
        if as_json:
            click.echo(json.dumps(documents.letter_document(letter, places=places)))
        else:
            for line in letter_lines(letter):
                click.echo(line)

    shown = 0
    try:
        for letter in islice(jobs.failures(job_id), limit):
            show(letter, places=True)
            shown += 1
    except (StoreError, SourceChanged, InvalidSettings) as error:
        if shown:
            fail(f"the list of failed objects ends early: {error}")
        note(f"cannot look up which paths need the failed objects: {error}")
        for letter in islice(jobs.failures(job_id, places=False), limit):
            show(letter, places=False)
            shown += 1
    if found.imported and found.failed:
        note(IMPORTED)
    elif not as_json and found.failed > shown:
        click.echo(f"and {found.failed - shown:,} more")
    for row in jobs.unreadable(job_id):
        if as_json:
            click.echo(json.dumps(documents.unreadable_document(row)))
        else:
            click.echo(manifest_line(row))
    if not as_json and found.state.final and (advice := with_fleet(advise(found))):
        note(advice.text)
    return 0


@with_job
def receipt(jobs: Jobs, job_id: str, as_json: bool) -> int:
    document = jobs.receipt(job_id)
    click.echo(json.dumps(document, indent=2))
    if not document["final"]:
        note(f"job {job_id} has not ended: it is {document['state']}, and the receipt is preliminary")
    return 0
