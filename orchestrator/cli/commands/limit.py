"""The command that sets limits: limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from snapferry.orchestrator.cli.exit_codes import on_fleet, read_settings, usage
from snapferry.orchestrator.cli.options import (
    MOST_JOBS,
    MOST_REQUESTS,
    about_a_job,
    broker_option,
    changed_count,
    changed_rate,
    json_option,
)
from snapferry.orchestrator.cli.store_names import store_url

if TYPE_CHECKING:
    from snapferry.orchestrator.jobs import Jobs

Changed = Mapping[str, Any]


@click.command()
@click.argument("job", metavar="[JOB]", required=False)
@click.option(
    "--store",
    metavar="URL",
    help="Limits of this store, whatever the job: its URL, or its name in snapferry.toml.",
)
@click.option(
    "--limit-rate",
    callback=changed_rate,
    metavar="RATE",
    help="Bytes a second: as in 500k, 100M, 1.5Gi, or none. Of a job those read from its source, of a store those"
    " read and written.",
)
@click.option(
    "--max-requests",
    callback=changed_count(MOST_REQUESTS, "default"),
    metavar="N",
    help="Requests a second, or none. Of a job those to each of its stores. Of a store also default:"
    " what stores of its kind have, at S3 SNAPFERRY_S3_MAX_REQUESTS.",
)
@click.option(
    "-j",
    "--jobs",
    "in_flight",
    callback=changed_count(MOST_JOBS),
    metavar="N",
    help="Objects in flight at once, or none.",
)
@click.option("--none", "no_limits", is_flag=True, help="Take all limits away.")
@json_option
@broker_option
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
    """
    Limit a job, or a store for all jobs together, also while they run.

    All workers of the fleet keep to a limit together, within seconds. What is not given stays as it is. Without
    options the limits are shown; without JOB and --store, those of all stores.
    """
    given = {"rate": limit_rate, "requests": max_requests, "jobs": in_flight}
    changed = {name: _count(value) for name, value in given.items() if value is not None}
    if no_limits and changed:
        usage("--none takes all limits away: give it alone")
    if no_limits:
        changed = dict.fromkeys(given)
    if job is not None and store is not None:
        usage("give a job or --store URL, not both")
    if max_requests == "default" and store is None:
        usage("--max-requests default is for stores: give --store URL")
    if job is not None:
        command: Any = about_a_job(_limit_job)
        return int(command(job=job, broker=broker, changed=changed, as_json=as_json))
    if store is None and changed:
        usage("limit what? Give a job, or --store URL")
    return _limit_stores(store, changed, as_json=as_json, broker=broker)


def _count(value: int | str) -> int | str | None:
    return None if value == "none" else value


def _limit_job(jobs: Jobs, job_id: str, changed: Changed, as_json: bool) -> int:
    from snapferry.orchestrator.reporting.documents import limit_document
    from snapferry.orchestrator.reporting.report import limit_words

    status = jobs.limit(job_id, changed) if changed else jobs.status(job_id)
    if changed and status.state.final:
        usage(f"job {job_id} has ended already: it is {status.state}")
    if as_json:
        _print({"job": job_id, "limits": limit_document(status.limits)})
    else:
        click.echo(f"job {job_id}: {limit_words(status.limits) or 'no limits'}")
    return 0


def _limit_stores(store: str | None, changed: Changed, *, as_json: bool, broker: str | None) -> int:
    from snapferry.orchestrator.reporting.documents import limit_document
    from snapferry.orchestrator.reporting.report import limit_words
    from snapferry.stores.errors import InvalidStoreURL
    from snapferry.stores.text.printable import printable
    from snapferry.stores.urls import parse_url
    from snapferry.workers.limits import StoreLimits
    from snapferry.workers.settings.environment import store_options

    settings = read_settings(broker)
    url = ""
    if store is not None:
        try:
            place = parse_url(store_url(settings, store))
        except InvalidStoreURL as error:
            usage(str(error))
        here, there = store_options("from"), store_options("to")
        if (
            here["endpoint_url"] != there["endpoint_url"]
            and "endpoint_url" in place.kind.parameters
            and not place.option("endpoint_url")
        ):
            usage(
                "--store: the environment has different endpoints for --from and --to; name the store's in its URL"
            )
        url = str(place.with_defaults(endpoint_url=here["endpoint_url"]))
    with on_fleet(settings, lost="") as jobs:
        limits = dict([jobs.limit_store(url, changed)]) if store is not None else jobs.limited_stores()
    of_s3 = settings.s3_max_requests
    if as_json:
        others = {} if store is not None else {"defaults": {"s3": {"requests_per_second": of_s3}}}
        _print({"stores": {name: limit_document(found) for name, found in limits.items()}} | others)
        return 0
    for name, found in limits.items():
        click.echo(printable(f"{name}: {limit_words(found) or 'no limits'}"))
    if not limits:
        click.echo("no store has limits of its own")
    if store is None and of_s3 is not None:
        click.echo(f"every other S3 store: {limit_words(StoreLimits(requests=of_s3, by_default=True))}")
    return 0


def _print(document: Mapping[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))
