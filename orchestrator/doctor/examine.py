"""All that the doctor looks at, in order."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied, find_server
from snapferry.stores.access import TRUSTED
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import size
from snapferry.workers.diagnosis.broker_check import check_redis, open_broker
from snapferry.workers.diagnosis.store_check import Check, Looking, Told
from snapferry.workers.settings.environment import Settings

from .fleet import fleet_facts, judge_fleet, known_nodes
from .line import Line
from .nodes import judge_nodes, nodes_look
from .open_jobs import jobs_findings

# The embedded server keeps its data in memory, but its socket and log in the temporary directory.
FEW_BYTES = 64 * 1024**2


def examine(settings: Settings, check: Check) -> list[Line]:
    """
    Look at the fleet, or at what stands in for it without a broker, and at the stores of *check*.

    Takes some seconds, two minutes at most. Raises `InvalidSettings`; whatever is wrong else is in the answer.
    """
    about_stores = check.source is not None or check.destination is not None
    if settings.broker_url is None:
        # It forks, so it comes before anything that makes threads.
        lines = [Line("fleet", finding) for finding in embedded(settings)]
        return lines + (_here(Looking(check, TRUSTED).end()) if about_stores else [])
    looking = Looking(check, TRUSTED) if about_stores else None
    try:
        lines, by_node = _fleet(settings, settings.broker_url, check if about_stores else None)
    except BaseException:
        if looking is not None:
            looking.stop()
        raise
    if looking is not None:
        here = _here(looking.end())
        lines += judge_nodes(here, by_node)
    return lines


def embedded(settings: Settings) -> Iterator[Finding]:
    """Say how a command works without a broker, and try it: the server is started, asked and ended."""
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
        yield Finding(Level.ERROR, "embedded", said, "install redis-server, or name a broker with --broker")
        return
    yield Finding(
        Level.OK,
        "embedded",
        f"no broker is configured: each command starts a server of its own ({server}, {version}; {took:.1f} s)",
    )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < FEW_BYTES:
        said = f"only {size(free)} is free in the temporary directory"
        yield Finding(Level.WARNING, "embedded.space", said, "make room there, or set TMPDIR")


def _fleet(
    settings: Settings, url: str, check: Check | None
) -> tuple[list[Line], dict[str, list[Line] | str]]:
    """Return what is to be said of the fleet, and of each node what it found at the stores, or why it did not look."""
    found = list(check_redis(url))
    lines = [Line("broker", finding) for finding in found]
    if found[0].level is Level.ERROR:
        return lines, {}
    app = make_fleet_app(settings)
    by_node: dict[str, list[Line] | str] = {}
    try:
        with open_broker(url) as client:
            known = known_nodes(client)
            answers = fleet_facts(app, len(known))
            lines += judge_fleet(answers, known, settings)
            lines += [Line("jobs", finding) for finding in jobs_findings(client, settings)]
            if check is not None:
                by_node = nodes_look(app, client, [answer for answer in answers if answer.facts], check)
    except (RedisError, OperationalError, OSError) as error:
        said = f"the fleet cannot be asked: {str(error)[:200] or type(error).__name__}"
        advice = "see what was said of the broker; if nothing, look at its log"
        lines.append(Line("fleet", Finding(Level.ERROR, "fleet.answers", said, advice)))
    finally:
        app.close()
    return lines, by_node


def _here(found: Iterable[Told]) -> list[Line]:
    return [Line(told.where, told.finding) for told in found]
