"""A job until its end: show it, and say how it ended."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, SUBMIT_AGAIN, fail, note, usage
from .options import Show

if TYPE_CHECKING:
    from snapferry.orchestrator.jobs import Jobs
    from snapferry.orchestrator.reporting.failures import DeadLetter
    from snapferry.workers.ledger import JobStatus

# How long an interrupted sync waits for running copies to let go.
CANCEL_TIMEOUT_S = 10.0

# How often a job of a fleet is looked at that may be watched from far away.
WATCH_POLL_S = 0.5


def run(
    jobs: Jobs,
    job_id: str,
    show: Show,
    *,
    check: Callable[[], None] = lambda: None,
    receipt_path: str | None = None,
    on_fleet: bool,
) -> int:
    """
    Show a job of this command until it ends; return the exit code. Ctrl-C cancels it.

    A job of a fleet goes on when the broker is lost here: the line about that says so, with the job's id.
    """
    from snapferry.orchestrator.jobs import POLL_S
    from snapferry.workers.broker.connection import BrokerUnavailable

    try:
        status = follow(jobs, job_id, show, check=check, poll_s=POLL_S)
    except BrokerUnavailable as error:
        if not on_fleet:
            raise
        fail(f"{error}\nJob {job_id} goes on without this command. Follow it: snapferry watch {job_id}")
    except KeyboardInterrupt:
        status = _cancel(jobs, job_id, receipt_path, on_fleet=on_fleet)
    return report_end(jobs, status, show, receipt_path=receipt_path, on_fleet=on_fleet)


def watch(jobs: Jobs, job_id: str, show: Show, *, receipt_path: str | None = None) -> int:
    """Show a job of the fleet until it ends; return the exit code. Ctrl-C ends the watching alone."""
    try:
        status = follow(jobs, job_id, show, poll_s=WATCH_POLL_S)
    except KeyboardInterrupt:
        note(f"stopped watching; job {job_id} goes on. To stop it: snapferry cancel {job_id}")
        return EXIT_INTERRUPTED
    return report_end(jobs, status, show, receipt_path=receipt_path, on_fleet=True)


def follow(
    jobs: Jobs, job_id: str, show: Show, *, poll_s: float, check: Callable[[], None] = lambda: None
) -> JobStatus:
    """Show a job until it ends; return its final status."""
    from snapferry.orchestrator.reporting.progress import view

    shown, context = view(quiet=show.silent, color=show.color)
    with context:
        return jobs.wait(job_id, shown.show, check=check, poll_s=poll_s)


def _cancel(jobs: Jobs, job_id: str, receipt_path: str | None, *, on_fleet: bool) -> JobStatus:
    """Cancel the job of an interrupted command; return its status if it ended on its own just then."""
    from snapferry.workers.broker.connection import BrokerUnavailable
    from snapferry.workers.ledger import State, UnknownJob

    status: JobStatus | None = None
    with suppress(KeyboardInterrupt, BrokerUnavailable, UnknownJob):
        jobs.cancel(job_id)
        status = jobs.wait(job_id, timeout_s=CANCEL_TIMEOUT_S)
        if status.state in (State.DONE, State.FAILED):
            return status
        if status.state.final and receipt_path is not None:
            write_receipt(receipt_path, jobs.receipt(job_id))
    resume = f"{SUBMIT_AGAIN[:-1]}, or: snapferry resume {job_id}" if on_fleet else SUBMIT_AGAIN
    words = f"Job {job_id} may still be coming to its end."
    if status is not None and status.state.final:
        words = "No manifest was written."
        if status.snapshots_published:
            words = f"{status.snapshots_published:,} of {status.snapshots_total:,} snapshots are published."
    note(f"interrupted. What was copied stays, nothing is half-visible. {words} {resume}")
    raise SystemExit(EXIT_INTERRUPTED)


def report_end(
    jobs: Jobs, status: JobStatus, show: Show, *, receipt_path: str | None = None, on_fleet: bool
) -> int:
    """Print how a job ended; return the exit code."""
    from snapferry.orchestrator.reporting import documents, report
    from snapferry.workers.ledger import State

    estimate, letters, document = _details(jobs, status, receipt=receipt_path is not None)
    if show.as_json:
        click.echo(json.dumps(documents.end_document(status, letters, estimate), indent=2))
    if status.state is State.DONE:
        if not show.quiet and not show.as_json:
            for line in (
                report.dry_run_lines(status, estimate)
                if estimate and status.dry_run
                else [report.done_words(status)]
            ):
                click.echo(line)
        code = 0
    else:
        for line in report.failure_lines(letters, status.failed):
            click.echo(line, err=True)
        note(f"{status.state}: {status.error or 'the job was cancelled'}")
        if on_fleet and (steps := report.next_steps(status)):
            note(steps)
        code = EXIT_FAILED
    # Behind the summary: that is not lost where the receipt cannot be written.
    if receipt_path is not None and not (document and write_receipt(receipt_path, document)):
        return EXIT_FAILED
    return code


def _details(
    jobs: Jobs, status: JobStatus, *, receipt: bool
) -> tuple[dict[str, Any], list[DeadLetter], dict[str, Any]]:
    """Return what is known of an ended job besides its status; nothing, and that is said, if the broker is away."""
    from snapferry.workers.broker.connection import BrokerUnavailable
    from snapferry.workers.ledger import UnknownJob

    estimate: dict[str, Any] = {}
    letters: list[DeadLetter] = []
    try:
        estimate = jobs.estimate(status.job_id)
        letters = list(jobs.failures(status.job_id, places=False)) if status.failed else []
        return estimate, letters, jobs.receipt(status.job_id) if receipt else {}
    except (BrokerUnavailable, UnknownJob) as error:
        note(f"job {status.job_id} has ended, and its details cannot be read: {error}")
        return estimate, letters, {}


def check_receipt_path(path: str | None) -> None:
    """Find out before a job is begun that its receipt could not be written."""
    if path is None:
        return
    target = Path(path)
    if target.exists() and not target.is_file():
        usage(f"--receipt {path}: is no regular file")
    if not target.parent.is_dir():
        usage(f"--receipt {path}: there is no directory {target.parent}")
    try:
        # Rights alone do not tell: the file system may be read-only or full.
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name[:100]}.") as probe:
            probe.write(b"{}")
    except OSError as error:
        usage(f"--receipt {path}: nothing can be written in {target.parent}: {error.strerror or error}")


def write_receipt(path: str, document: Mapping[str, Any]) -> bool:
    """
    Put a receipt at *path*: all of it, or what was there before; say whether that was possible.

    If not, it is put into the temporary directory, and a line says where and why.
    """
    target = Path(path)
    try:
        _write(target, document)
        return True
    except OSError as error:
        why = f"the receipt cannot be written to {path}: {error.strerror or error}"
    instead = Path(tempfile.gettempdir()) / f"snapferry-receipt-{document.get('job', os.getpid())}.json"
    try:
        _write(instead, document)
        note(f"{why}. It is in {instead} instead")
    except OSError as error:
        note(f"{why}, nor to {instead}: {error.strerror or error}")
    return False


def _write(target: Path, document: Mapping[str, Any]) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with beside.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
