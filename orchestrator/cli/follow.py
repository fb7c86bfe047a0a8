"""Follow a job until it ends: show its progress, then its result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import click

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.jobs import POLL_S, Jobs
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.documents import FAILURES_IN_JSON, end_document
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.orchestrator.reporting.measures import idle_s
from snapferry.orchestrator.reporting.nodes import Lack
from snapferry.orchestrator.reporting.progress import view
from snapferry.orchestrator.reporting.text.failures import failure_lines, manifest_line, places_lines
from snapferry.orchestrator.reporting.text.interrupted import interrupted_text
from snapferry.orchestrator.reporting.text.outcome import done_lines
from snapferry.stores.errors import StoreError
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import JobStatus, State, UnknownJob

from .command_line import job_command, typed, with_fleet
from .exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, Terminated, fail, note
from .inputs.show import Show
from .receipt_file import write_receipt

# Manifests that could not be read that are listed at the end of a job.
MANIFESTS_SHOWN: Final = 20

# Seconds that an interrupted sync waits for running copies to stop.
CANCEL_TIMEOUT_S: Final = 10.0

# Seconds between two readings of the status of a job of an embedded fleet, which tells when the job goes on.
EMBEDDED_POLL_S: Final = 0.1

# Seconds between two looks at which workers run.
LACKS_S: Final = 3.0

# Seconds between two readings of a job's status by `watch`, which may run far from the broker.
WATCH_POLL_S: Final = 0.5


def print_new_job(job_id: str, *, quiet: bool, as_json: bool) -> None:
    """Print the id of a job that was queued, and how to follow the job."""
    click.echo(json.dumps({"job": job_id}) if as_json else job_id)
    if not quiet:
        note(f"follow it: {job_command('watch', job_id)}")


def run(
    jobs: Jobs,
    job_id: str,
    show: Show,
    *,
    check: Callable[[], None] = lambda: None,
    pause: Callable[[float], object] = time.sleep,
    receipt_path: str | None = None,
    on_fleet: bool,
) -> int:
    """
    Follow a job that this command submitted; return the exit code. Ctrl-C cancels the job.

    *check* and *pause* are those of `snapferry.orchestrator.jobs.Jobs.follow`.

    SIGTERM cancels a job that is not *on_fleet*. A job on a fleet continues after SIGTERM, and if the broker is lost
    here; the message names it.
    """
    try:
        poll_s = POLL_S if on_fleet else EMBEDDED_POLL_S
        status = _follow(jobs, job_id, show, poll_s=poll_s, check=check, pause=pause, on_fleet=on_fleet)
    except BrokerUnavailable as error:
        if not on_fleet:
            raise
        fail(
            f"{error}\nJob {job_id} continues without this command. To follow it: {job_command('watch', job_id)}"
        )
    except KeyboardInterrupt as error:
        if on_fleet and isinstance(error, Terminated):
            note(f"terminated; job {job_id} continues. To follow it: {job_command('watch', job_id)}")
            return EXIT_INTERRUPTED
        status = _cancel(jobs, job_id, receipt_path, on_fleet=on_fleet)
    return _report_end(jobs, status, show, receipt_path=receipt_path, on_fleet=on_fleet)


def watch(jobs: Jobs, job_id: str, show: Show, *, receipt_path: str | None = None) -> int:
    """Follow a job of the fleet; return the exit code. Ctrl-C stops the watching, not the job."""
    try:
        status = _follow(jobs, job_id, show, poll_s=WATCH_POLL_S)
    except KeyboardInterrupt:
        note(f"stopped watching; job {job_id} continues. To stop it: {job_command('cancel', job_id)}")
        return EXIT_INTERRUPTED
    return _report_end(jobs, status, show, receipt_path=receipt_path, on_fleet=True)


def _follow(
    jobs: Jobs,
    job_id: str,
    show: Show,
    *,
    poll_s: float,
    check: Callable[[], None] = lambda: None,
    pause: Callable[[float], object] = time.sleep,
    on_fleet: bool = True,
) -> JobStatus:
    """Show a job until it ends; return its final status."""
    shown, context = view(quiet=show.silent, color=show.color)
    asked_at = 0.0
    # *check* tells if a part of the command's own fleet ends. While that is not so, it is slow at worst.
    lacks: Lack = None if on_fleet else ""

    def look(status: JobStatus) -> None:
        nonlocal asked_at, lacks
        if on_fleet and time.monotonic() - asked_at > LACKS_S:
            asked_at = time.monotonic()
            with suppress(BrokerUnavailable):
                # At the beginning of a job its workers may not have announced themselves yet.
                lacks = jobs.lacks(status) if idle_s(status) > LACKS_S else None
        shown.show(status, lacks)

    with context:
        watch = shown.show if show.silent else look
        return jobs.wait(job_id, watch, check=check, poll_s=poll_s, pause=pause)


def _cancel(jobs: Jobs, job_id: str, receipt_path: str | None, *, on_fleet: bool) -> JobStatus:
    """Cancel the job of an interrupted command and exit; return its status if it ended by itself just then."""
    status: JobStatus | None = None
    with suppress(KeyboardInterrupt, BrokerUnavailable, UnknownJob):
        jobs.cancel(job_id)
        status = jobs.wait(job_id, timeout_s=CANCEL_TIMEOUT_S)
        if status.state in (State.DONE, State.FAILED):
            return status
        if status.state.final and receipt_path is not None:
            write_receipt(receipt_path, jobs.receipt(job_id))
    if status is None:
        text = f"Job {job_id} may still be running. To see it: {job_command('status', job_id)}"
    else:
        text = f"{interrupted_text(status)} {_text(_advice(status, on_fleet=on_fleet), on_fleet=on_fleet)}"
    note(f"interrupted. {text}")
    raise SystemExit(EXIT_INTERRUPTED)


def _advice(status: JobStatus, *, on_fleet: bool) -> Advice:
    """Return what to do next about a job that this command followed."""
    return with_fleet(advise(status)) if on_fleet else advise(status, again=typed())


def _text(advice: Advice, *, on_fleet: bool) -> str:
    """Return *advice* for a person, who sees the command that they typed."""
    return advice.text if on_fleet else advice.sentence


def _report_end(
    jobs: Jobs, status: JobStatus, show: Show, *, receipt_path: str | None, on_fleet: bool
) -> int:
    """Print the result of a job; return the exit code."""
    # The record of an embedded fleet ends with it, so the paths are looked up now.
    estimate, letters, receipt = _details(jobs, status, receipt=receipt_path is not None, places=not on_fleet)
    unreadable = _unreadable(jobs, status)
    advice = _advice(status, on_fleet=on_fleet)
    if show.as_json:
        click.echo(json.dumps(end_document(status, letters, estimate, unreadable, advice=advice), indent=2))
    if status.state is State.DONE:
        if not show.quiet and not show.as_json:
            for line in done_lines(status, estimate):
                click.echo(line)
        if status.action.makes_snapshot and not status.dry_run and not show.as_json:
            click.echo(status.first_snapshot)
        code = 0
    else:
        for line in failure_lines(letters, 0 if status.imported else status.failed):
            click.echo(line, err=True)
        for line in places_lines(letters):
            click.echo(line, err=True)
        for row in unreadable[:MANIFESTS_SHOWN]:
            click.echo(f"  {manifest_line(row)}", err=True)
        reason = (
            f"{status.state}: {status.error}" if status.error else f"job {status.job_id} was {status.state}"
        )
        note(reason if on_fleet else f"{reason.removesuffix('.')}. {advice.sentence}")
        code = EXIT_FAILED
    if advice and on_fleet and not (status.state is State.DONE and (show.quiet or show.as_json)):
        note(advice.text)
    # After the summary, which is printed even if the receipt cannot be written.
    if receipt_path is not None and not (receipt and write_receipt(receipt_path, receipt)):
        return EXIT_FAILED
    return code


def _details(
    jobs: Jobs, status: JobStatus, *, receipt: bool, places: bool
) -> tuple[dict[str, Any], list[DeadLetter], dict[str, Any]]:
    """Return estimate, failed objects and receipt of a job that has ended; what cannot be read is empty."""
    estimate: dict[str, Any] = {}
    letters: list[DeadLetter] = []
    try:
        estimate = jobs.estimate(status.job_id)
        letters = _letters(jobs, status, places=places)
        return estimate, letters, jobs.receipt(status.job_id) if receipt else {}
    except (BrokerUnavailable, UnknownJob) as error:
        note(f"job {status.job_id} ended as {status.state}, but its details cannot be read: {error}")
        return estimate, letters, {}


def _letters(jobs: Jobs, status: JobStatus, *, places: bool) -> list[DeadLetter]:
    """Return the first failed objects of a job, with their *places* if the manifests can be read."""
    if not status.failed:
        return []
    if places:
        with suppress(StoreError, SourceChanged):
            return list(islice(jobs.failures(status.job_id), FAILURES_IN_JSON))
    return list(jobs.failures(status.job_id, places=False))


def _unreadable(jobs: Jobs, status: JobStatus) -> list[SnapshotRow]:
    """Return the snapshots whose manifests could not be read."""
    if not status.snapshots_failed:
        return []
    try:
        return jobs.unreadable(status.job_id)
    except (BrokerUnavailable, UnknownJob):
        return []
