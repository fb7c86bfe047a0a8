"""Copy snapshots: the bodies of sync, plan and submit."""

from __future__ import annotations

from snapferry.orchestrator.cli.inputs.job_spec import with_job_spec
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.launch import queue_job, run_job
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings


@with_job_spec
@with_show
def sync(spec: JobSpec, settings: Settings, receipt_path: str | None, verbose: bool, show: Show) -> int:
    check_receipt_path(receipt_path, dry_run=spec.dry_run)
    return run_job(spec, settings, show, receipt_path=receipt_path, verbose=verbose)


@with_job_spec
@with_show
def plan(spec: JobSpec, settings: Settings, verbose: bool, show: Show) -> int:
    return run_job(spec.model_copy(update={"dry_run": True}), settings, show, verbose=verbose)


@with_job_spec
def submit(spec: JobSpec, settings: Settings, quiet: bool, as_json: bool) -> int:
    return queue_job(spec, settings, quiet=quiet, as_json=as_json)
