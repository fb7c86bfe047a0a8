"""
Mirrors: jobs that are made again and again, by Celery beat.

Beat only says that a mirror is due. Whether it is run is decided by the orchestrator that takes the message: not
while the last job of the mirror goes on. Beat's schedule is kept in Redis (RedBeat): it survives restarts, and
of several schedulers one runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import JobStatus, MirrorLedger, MirrorRecord, UnknownJob
from snapferry.workers.ledger.keys import SCHEDULE
from snapferry.workers.messages import Limits, MirrorMessage, Prune
from snapferry.workers.settings.config_file import Config, Mirror
from snapferry.workers.settings.environment import InvalidSettings, Settings

log = logging.getLogger(__name__)

# A tick that nobody took for so long is dropped: the next one does as well.
_LONGEST_WAIT_S: Final = 3600

# While an orchestrator queues the job of a mirror, another one leaves it alone.
_TAKEN_S: Final = 30

# How often beat looks at its schedule, and after how long without a sign of it another scheduler takes over.
LOOP_S: Final = 5
TAKE_OVER_S: Final = 30


def message_of(mirror: Mirror, config: Config) -> MirrorMessage:
    """
    Return what is queued when *mirror* is due.

    Raises `InvalidSettings` for stores that no job can have.
    """
    try:
        source, destination = store_pair(config.url(mirror.from_), config.url(mirror.to))
    except InvalidStoreURL as error:
        raise InvalidSettings(f"mirror {mirror.name!r}: {error}") from None
    return MirrorMessage(
        name=mirror.name,
        source=source,
        destination=destination,
        prune=Prune(max_delete=mirror.max_delete) if mirror.delete else None,
        limits=Limits(jobs=mirror.jobs),
        patience=mirror.patience_s,
        **mirror.options(),
    )


def schedule_mirrors(app: Celery, settings: Settings, config: Config) -> None:
    """Let Celery beat, run from *app*, keep the schedule of *config*. Raises `InvalidSettings`."""
    assert settings.broker_url is not None  # make_fleet_app refuses settings without one
    app.conf.update(
        beat_scheduler="snapferry.orchestrator.mirrors.scheduler.MirrorScheduler",
        beat_max_loop_interval=LOOP_S,
        beat_schedule={mirror.name: _entry(app, mirror, config) for mirror in config.mirror},
        redbeat_redis_url=settings.broker_url,
        redbeat_redis_options={},
        redbeat_key_prefix=SCHEDULE,
        redbeat_lock_timeout=TAKE_OVER_S,
    )
    # The client that RedBeat would make takes no unix socket, and waits for ever on a connection that is half open.
    app.redbeat_redis = client(settings.broker_url)


def _entry(app: Celery, mirror: Mirror, config: Config) -> dict[str, Any]:
    return {
        "task": "snapferry.run_mirror",
        "schedule": mirror.times(app),
        "args": (_dumped(message_of(mirror, config)),),
        "options": {
            "expires": min(mirror.interval_s or _LONGEST_WAIT_S, _LONGEST_WAIT_S),
            "argsrepr": f"mirror {mirror.name}",
            "kwargsrepr": "",
        },
    }


def _dumped(message: MirrorMessage) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude=message.new_defaults())


def run_mirror(settings: Settings, message: MirrorMessage) -> str:
    """
    Queue the job of a mirror that is due, unless its last one goes on; return what was done, in words.

    May be called again: a second call finds the job of the first. Raises what `Jobs` raises.
    """
    mirrors, jobs = _ledger(settings), Jobs(settings, check=False)
    with mirrors.taken(message.name, _TAKEN_S) as mine:
        return _run(jobs, mirrors, message, settings.patience) if mine else "another orchestrator is at it"


def _run(jobs: Jobs, mirrors: MirrorLedger, message: MirrorMessage, patience_s: float) -> str:
    last = _last_job(jobs, mirrors.record(message.name))
    if last is not None and not last.state.final:
        why = f"job {last.job_id} still goes on ({last.state})"
        mirrors.skipped(message.name, why)
        log.warning("mirror %s is skipped: %s", message.name, why)
        return f"skipped: {why}"
    job_id = jobs.submit(message.job_spec(patience=patience_s))
    mirrors.started(message.name, job_id)
    log.info("mirror %s: job %s is queued", message.name, job_id)
    return f"job {job_id} is queued"


@dataclass(frozen=True)
class MirrorStanding:
    """A mirror, what became of its last times, its last job as far as it is remembered, and when it is due next."""

    mirror: Mirror
    record: MirrorRecord
    job: JobStatus | None
    next_at: float | None


def mirror_standings(settings: Settings, jobs: Jobs, mirrors: Iterable[Mirror]) -> list[MirrorStanding]:
    """Return where each of *mirrors* stands, in their order."""
    ledger = _ledger(settings)
    found = []
    for mirror in mirrors:
        record = ledger.record(mirror.name)
        found.append(MirrorStanding(mirror, record, _last_job(jobs, record), ledger.next_at(mirror.name)))
    return found


def _ledger(settings: Settings) -> MirrorLedger:
    assert settings.broker_url is not None  # whoever keeps a schedule has a broker
    return MirrorLedger(client(settings.broker_url))


def _last_job(jobs: Jobs, record: MirrorRecord) -> JobStatus | None:
    if not record.job_id:
        return None
    try:
        return jobs.status(record.job_id)
    except UnknownJob:
        return None
