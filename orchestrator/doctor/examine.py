"""All checks of the doctor, in order."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, find_server
from snapferry.stores.access import TRUSTED
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import size
from snapferry.workers.diagnosis.broker_check import check_redis, open_broker
from snapferry.workers.diagnosis.store_check import Check, CheckProcess, SideFinding
from snapferry.workers.settings.environment import Settings

from .fleet import check_fleet, fleet_facts, known_nodes
from .open_jobs import check_jobs
from .result import CheckResult
from .store_checks import check_stores, compare_nodes

# The embedded server keeps its data in memory, but its socket and log in the temporary directory.
FEW_BYTES: Final = 64 * 1024**2


def examine(settings: Settings, check: Check) -> list[CheckResult]:
    """
    Check the fleet, or without a broker the embedded fleet, and the stores of *check*.

    Takes some seconds, at most two minutes. Raises `InvalidSettings`; everything else that is wrong is in the results.
    """
    about_stores = check.source is not None or check.destination is not None
    if settings.broker_url is None:
        # The embedded fleet forks, so it comes before anything that starts threads.
        results = [CheckResult("fleet", finding) for finding in check_embedded(settings)]
        return results + (_local(CheckProcess(check, TRUSTED).end()) if about_stores else [])
    process = CheckProcess(check, TRUSTED) if about_stores else None
    try:
        results, by_node = _fleet(settings, settings.broker_url, check if about_stores else None)
    except BaseException:
        if process is not None:
            process.stop()
        raise
    if process is not None:
        results += compare_nodes(_local(process.end()), by_node)
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


def _fleet(
    settings: Settings, url: str, check: Check | None
) -> tuple[list[CheckResult], dict[str, list[CheckResult] | str]]:
    """Return results about the fleet, and those of each node about the stores, or why a node has none."""
    found = list(check_redis(url))
    results = [CheckResult("broker", finding) for finding in found]
    if found[0].level is Level.ERROR:
        return results, {}
    app = make_fleet_app(settings)
    by_node: dict[str, list[CheckResult] | str] = {}
    try:
        with open_broker(url) as client:
            known = known_nodes(client)
            answers = fleet_facts(app, len(known))
            results += check_fleet(answers, known, settings)
            results += [CheckResult("jobs", finding) for finding in check_jobs(client, settings)]
            if check is not None:
                by_node = check_stores(app, client, [answer for answer in answers if answer.facts], check)
    except (RedisError, OperationalError, OSError) as error:
        said = f"the broker failed while the fleet was checked: {str(error)[:200] or type(error).__name__}"
        advice = "see the findings about the broker, and its log"
        results.append(CheckResult("fleet", Finding(Level.ERROR, "fleet.answers", said, advice)))
    finally:
        app.close()
    return results, by_node


def _local(found: Iterable[SideFinding]) -> list[CheckResult]:
    return [CheckResult(one.where, one.finding) for one in found]
