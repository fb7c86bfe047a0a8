"""All checks of the doctor, in order."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, find_server
from snapferry.orchestrator.jobs.known_nodes import announced, known_nodes
from snapferry.stores.access import TRUSTED
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import size
from snapferry.workers.diagnosis.broker_check import check_redis, open_broker
from snapferry.workers.diagnosis.store_check import Check, CheckProcess, SideFinding
from snapferry.workers.extras import NotInstalled
from snapferry.workers.settings.environment import Settings

from .fleet import Answer, check_fleet, fleet_facts
from .open_jobs import check_jobs
from .result import CheckResult
from .schedules import check_schedules
from .store_checks import check_stores, compare_nodes
from .tables import LONGEST_S, about, checks_of_tables, not_checked

# The embedded server keeps its data in memory, but its socket and log in the temporary directory.
FEW_BYTES: Final = 64 * 1024**2


def examine(settings: Settings, check: Check) -> list[CheckResult]:
    """
    Check the fleet, or without a broker the embedded fleet, and the stores of *check*.

    Without stores in *check*, the stores of the tables of `snapferry.toml` are checked. Takes some seconds, at most a
    few minutes. Raises `InvalidSettings`; everything else that is wrong is in the results.
    """
    about_stores = check.source is not None or check.destination is not None
    checks = [("", check)] if about_stores else list(checks_of_tables(settings))
    if settings.broker_url is None:
        # The embedded fleet forks, so it comes before anything that starts threads.
        results = [CheckResult("fleet", finding) for finding in check_embedded(settings)]
        return results + _each(checks, lambda one: _local(CheckProcess(one, TRUSTED).end()))
    return _fleet(settings, settings.broker_url, checks)


def _each(
    checks: Iterable[tuple[str, Check | Finding]], check_stores: Callable[[Check], Iterable[CheckResult]]
) -> list[CheckResult]:
    """Return the results of *checks*, each with the name of the table that it is of, "" for none."""
    results: list[CheckResult] = []
    until = time.monotonic() + LONGEST_S
    for table, check in checks:
        if isinstance(check, Finding):
            results.append(CheckResult(table, check))
        elif time.monotonic() > until:
            results.append(not_checked(table))
        else:
            results += about(table, check_stores(check))
    return results


def check_embedded(settings: Settings) -> Iterator[Finding]:
    """Start an embedded fleet, yield findings about it, and stop it."""
    began = time.monotonic()
    try:
        server = find_server()
        with EmbeddedFleet(settings, processes=1) as fleet:
            took = time.monotonic() - began
            with open_broker(fleet.settings.broker_url or "") as client:
                info: Mapping[str, Any] = client.info("server")
            version = info.get("valkey_version") or info.get("redis_version")
            fleet.check()
    except NotInstalled as error:
        said, _, advice = str(error).partition("; ")
        yield Finding(Level.ERROR, "embedded", f"no broker is configured, and {said}", advice)
        return
    except (FleetDied, RedisError, OSError) as error:
        said = f"no broker is configured, and the embedded server does not start: {error}"
        yield Finding(Level.ERROR, "embedded", said, "install redis-server, or set a broker with --broker")
        return
    yield Finding(
        Level.OK,
        "embedded",
        f"no broker is configured: each command starts its own server ({server}, {version}; {took:.1f} s)",
    )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < FEW_BYTES:
        said = f"only {size(free)} free in the temporary directory"
        yield Finding(Level.WARNING, "embedded.space", said, "free some space there, or set TMPDIR")


def _fleet(settings: Settings, url: str, checks: Sequence[tuple[str, Check | Finding]]) -> list[CheckResult]:
    """Return results about the fleet, and about the stores of *checks*, from this machine and from each node."""
    found = list(check_redis(url))
    results = [CheckResult("broker", finding) for finding in found]
    if found[0].level is Level.ERROR:
        return results + _each(checks, lambda one: _local(CheckProcess(one, TRUSTED).end()))
    app = make_fleet_app(settings)
    try:
        with open_broker(url) as client:
            known = known_nodes(client)
            answers = fleet_facts(app, known)
            results += check_fleet(answers, known, settings, announced(client))
            results += [CheckResult("jobs", finding) for finding in check_jobs(client, settings)]
            results += [CheckResult("schedules", finding) for finding in check_schedules(client, settings)]
            nodes = [answer for answer in answers if answer.facts]
            results += _each(checks, lambda one: _everywhere(app, client, nodes, one))
    except (RedisError, OperationalError, OSError) as error:
        said = f"the broker failed while the fleet was checked: {str(error)[:200] or type(error).__name__}"
        advice = "see the findings about the broker, and its log"
        results.append(CheckResult("fleet", Finding(Level.ERROR, "fleet.answers", said, advice)))
    finally:
        app.close()
    return results


def _everywhere(app: Celery, client: redis.Redis, nodes: Sequence[Answer], check: Check) -> list[CheckResult]:
    """Check stores from this machine and from *nodes* at the same time; return the results, judged together."""
    process = CheckProcess(check, TRUSTED)
    try:
        by_node = check_stores(app, client, nodes, check)
    except BaseException:
        process.stop()
        raise
    return compare_nodes(_local(process.end()), by_node)


def _local(found: Iterable[SideFinding]) -> list[CheckResult]:
    return [CheckResult(one.where, one.finding) for one in found]
