"""Run a job for a command: by the fleet of its broker, or by an embedded fleet."""

from __future__ import annotations

from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, default_processes
from snapferry.orchestrator.jobs import Jobs
from snapferry.stores.access import TRUSTED
from snapferry.stores.opening import prepare
from snapferry.workers.lifecycle.process_setup import max_in_flight
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings

from .exit_codes import RUN_AGAIN, fail, note
from .fleet_access import on_fleet
from .follow import print_new_job, run
from .inputs.show import Show


def queue_job(spec: JobSpec, settings: Settings, *, quiet: bool, as_json: bool) -> int:
    """Queue a job for the fleet and print its id; return the exit code."""
    with on_fleet(settings, advice=RUN_AGAIN) as jobs:
        job_id = jobs.submit(spec)
    print_new_job(job_id, quiet=quiet, as_json=as_json)
    return 0


def run_job(
    spec: JobSpec,
    settings: Settings,
    show: Show,
    *,
    receipt_path: str | None = None,
    verbose: bool,
    detach: bool = False,
) -> int:
    """
    Run a job to its end, by the fleet of the broker or, without a broker, by workers of this command.

    With *detach*, only queue it, as `queue_job` does. Returns the exit code. Ctrl-C cancels the job.
    """
    if detach:
        return queue_job(spec, settings, quiet=show.quiet, as_json=show.as_json)
    if settings.broker_url is None:
        return _embedded(spec, settings, show, receipt_path=receipt_path, verbose=verbose)
    with on_fleet(settings, advice=RUN_AGAIN) as jobs:
        return run(jobs, jobs.submit(spec), show, receipt_path=receipt_path, on_fleet=True)


def _embedded(
    spec: JobSpec, settings: Settings, show: Show, *, receipt_path: str | None, verbose: bool
) -> int:
    # Libraries that are loaded before the fleet forks are shared by all its processes.
    stores = (spec.source, spec.destination, *spec.more_sources)
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
