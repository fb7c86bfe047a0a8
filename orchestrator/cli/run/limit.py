"""Set and show limits."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import click

from snapferry.orchestrator.cli.exit_codes import usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.inputs.job import with_job
from snapferry.orchestrator.cli.inputs.store_names import store_url
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting.documents import limit_document
from snapferry.orchestrator.reporting.text.limits import limit_text
from snapferry.orchestrator.reporting.text.status import ended_text
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.printable import printable
from snapferry.stores.urls import parse_url
from snapferry.workers.limits import StoreLimits
from snapferry.workers.settings.environment import Settings, store_options

Changes = Mapping[str, Any]


def limit(
    job: str | None,
    store: str | None,
    limit_rate: int | str | None,
    max_requests: int | str | None,
    in_flight: int | str | None,
    no_limits: bool,
    as_json: bool,
    broker: str | None,
) -> int:
    given = {"rate": limit_rate, "requests": max_requests, "jobs": in_flight}
    changes = {name: None if value == "none" else value for name, value in given.items() if value is not None}
    if no_limits and changes:
        usage("--none cannot be combined with other limits")
    if no_limits:
        changes = dict.fromkeys(given)
    if job is not None and store is not None:
        usage("JOB cannot be combined with --store")
    if job is not None and "/" in job:
        usage(f"{job}: is not the id of a job. To limit a store, use --store {shlex.quote(job)}")
    if max_requests == "default" and store is None:
        usage("--max-requests default requires --store")
    if job is not None:
        command: Any = with_job(_limit_job)
        return int(command(job=job, broker=broker, changes=changes, as_json=as_json))
    if store is None and changes:
        usage("nothing to limit. Name a job, or use --store.")
    return _limit_stores(store, changes, as_json=as_json, broker=broker)


def _limit_job(jobs: Jobs, job_id: str, changes: Changes, as_json: bool) -> int:
    status = jobs.limit(job_id, changes) if changes else jobs.status(job_id)
    if as_json:
        _print({"job": job_id, "limits": limit_document(status.limits)})
    elif changes and status.state.final:
        click.echo(ended_text(status))
    else:
        click.echo(f"job {job_id}: {limit_text(status.limits) or 'no limits'}")
    return 0


def _limit_stores(store: str | None, changes: Changes, *, as_json: bool, broker: str | None) -> int:
    settings = read_settings(broker)
    url = "" if store is None else _complete_url(settings, store)
    with on_fleet(settings, advice="") as jobs:
        limits = dict([jobs.limit_store(url, changes)]) if store is not None else jobs.limited_stores()
    of_s3 = settings.s3_max_requests
    if as_json:
        others = {} if store is not None else {"defaults": {"s3": {"requests_per_second": of_s3}}}
        _print({"stores": {name: limit_document(found) for name, found in limits.items()}} | others)
        return 0
    for name, found in limits.items():
        click.echo(printable(f"{name}: {limit_text(found) or 'no limits'}"))
    if not limits:
        click.echo("no store has limits of its own")
    if store is None and of_s3 is not None:
        click.echo(f"every other S3 store: {limit_text(StoreLimits(requests=of_s3, by_default=True))}")
    return 0


def _complete_url(settings: Settings, store: str) -> str:
    """Return the URL of *store* with the endpoint of the environment, by which its limits are found."""
    try:
        url = parse_url(store_url(settings, store))
    except InvalidStoreURL as error:
        usage(str(error))
    source, destination = store_options("from"), store_options("to")
    if (
        source["endpoint_url"] != destination["endpoint_url"]
        and "endpoint_url" in url.kind.parameters
        and not url.option("endpoint_url")
    ):
        usage(
            "--store: the environment has different endpoints for --from and --to. Put endpoint_url into the URL."
        )
    return str(url.with_defaults(endpoint_url=source["endpoint_url"]))


def _print(document: Mapping[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))
