"""Run a job for a command: by the fleet of its broker, or by an embedded fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, default_processes
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.jobs.batching import batching
from snapferry.stores.access import TRUSTED
from snapferry.stores.opening import prepare
from snapferry.workers.lifecycle.process_setup import max_in_flight
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.settings.environment import Settings

from .chosen import chosen
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
    stores = (spec.source, spec.destination, *spec.more_sources)
    with embedded_fleet(settings, stores, spec.limits.jobs, verbose=verbose) as (fleet, jobs):
        job_id = jobs.submit(batched(fleet.divided(spec), settings))
        return run(
            jobs,
            job_id,
            show,
            check=fleet.check,
            pause=fleet.wait_for_step,
            receipt_path=receipt_path,
            on_fleet=False,
        )


def batched(spec: JobSpec, settings: Settings) -> JobSpec:
    """Return *spec* with batches for the processes of an embedded fleet."""
    chosen = settings.model_fields_set | spec.model_fields_set
    return spec.model_copy(update=batching(spec, lambda: default_processes(spec.limits.jobs), chosen))


@contextmanager
def embedded_fleet(
    settings: Settings, stores: Iterable[StoreRef], in_flight: int | None, *, verbose: bool
) -> Iterator[tuple[EmbeddedFleet, Jobs]]:
    """
    Yield a fleet of this command's own for a job on *stores*, and its jobs; end the command if a part of it dies.

    *in_flight* is the most objects in flight, None: as many as the stores sustain.
    """
    # Libraries that are loaded before the fleet forks are shared by all its processes.
    prepare({url.scheme for store in stores for url in (store.parsed, store.parsed_objects) if url})
    processes = default_processes(in_flight)
    if (in_flight or 0) > (most := processes * max_in_flight()):
        note(f"-j {in_flight}: limited to {most}, because a process here may open few files (ulimit -n)")
    try:
        level = chosen().get("log_level", "info" if verbose else None)
        with EmbeddedFleet(settings, processes=processes, log_level=level) as fleet:
            yield fleet, Jobs(fleet.settings, check=False, access=TRUSTED, plan=fleet.plan)
    except FleetDied as error:
        fail(f"{error}\nNothing is lost: no manifest was written before its objects. {RUN_AGAIN}")
