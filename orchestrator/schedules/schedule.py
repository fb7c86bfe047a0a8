"""
The schedule of the mirrors and scrubs, which Celery beat keeps.

Beat only sends a message that one of them is due. The orchestrator that takes the message decides whether it
runs: not while its last job has not ended. The schedule is kept in Redis (RedBeat). It survives restarts, and one of
several schedulers works.
"""

from __future__ import annotations

from typing import Any, Final

from celery import Celery

from snapferry.orchestrator.jobs import one_store, store_pair
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Expected
from snapferry.workers.ledger.keys import SCHEDULE
from snapferry.workers.ledger.schedules import entry_name
from snapferry.workers.messages import Limits, MirrorMessage, Prune, ScrubMessage, VerifyOptions
from snapferry.workers.settings.broker_url import shown
from snapferry.workers.settings.config_file import Config
from snapferry.workers.settings.environment import InvalidSettings, Settings
from snapferry.workers.settings.schedule_tables import Mirror, Scrub

RUN_MIRROR: Final = "snapferry.run_mirror"
RUN_SCRUB: Final = "snapferry.run_scrub"

# Seconds after which a message that no orchestrator took is dropped. The next one replaces it.
_LONGEST_WAIT_S: Final = 3600

# Seconds between two readings of the schedule, and seconds without activity after which another scheduler takes over.
LOOP_S: Final = 5
TAKE_OVER_S: Final = 30


def message_of(mirror: Mirror, config: Config) -> MirrorMessage:
    """
    Return the message to queue when *mirror* is due.

    Raises `InvalidSettings` for stores that no job can have.
    """
    try:
        source, destination = store_pair(
            config.url(mirror.from_), config.url(mirror.to), server_side=mirror.server_side
        )
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


def scrub_message(scrub: Scrub, config: Config, app: Celery) -> ScrubMessage:
    """
    Return the message to queue when *scrub* is due. *app* is for its schedule.

    Raises `InvalidSettings` for a store that no job can have.
    """
    try:
        store = one_store(config.url(scrub.store))
    except InvalidStoreURL as error:
        raise InvalidSettings(f"scrub {scrub.name!r}: {error}") from None
    return ScrubMessage(
        name=scrub.name,
        store=store,
        shares=scrub.shares,
        interval=scrub.mean_interval_s(app),
        limits=Limits(jobs=scrub.jobs, rate=scrub.limit_rate),
        bounds=VerifyOptions(max_bytes=scrub.max_bytes, max_seconds=scrub.max_seconds),
        priority=scrub.priority,
        queue=scrub.queue,
        patience=scrub.patience_s,
    )


def expected_of(config: Config) -> list[Expected]:
    """Return what *config* expects to run."""
    return [expected_one(one) for one in config.scheduled]


def expected_one(one: Mirror | Scrub) -> Expected:
    """Return what is expected of a mirror or scrub."""
    return Expected(one.kind, one.name, one.every, one.late_after_s)


def schedule_jobs(app: Celery, settings: Settings, config: Config) -> None:
    """Set Celery beat, run from *app*, to the schedule of *config*. Raises `InvalidSettings`."""
    assert settings.broker_url is not None  # make_fleet_app refuses settings without a broker
    app.conf.update(
        beat_scheduler="snapferry.orchestrator.schedules.scheduler.LockedScheduler",
        beat_max_loop_interval=LOOP_S,
        beat_schedule={
            **{one.name: _entry(app, one, RUN_MIRROR, message_of(one, config)) for one in config.mirror},
            **{
                entry_name(one.kind, one.name): _entry(app, one, RUN_SCRUB, scrub_message(one, config, app))
                for one in config.scrub
            },
        },
        snapferry_expected=expected_of(config),
        redbeat_redis_url=shown(settings.broker_url),
        redbeat_redis_options={},
        redbeat_key_prefix=SCHEDULE,
        redbeat_lock_timeout=TAKE_OVER_S,
    )
    # RedBeat's own client takes no unix socket, and waits forever on a half-open connection.
    app.redbeat_redis = client(settings.broker_url)


def _entry(
    app: Celery, one: Mirror | Scrub, task: str, message: MirrorMessage | ScrubMessage
) -> dict[str, Any]:
    return {
        "task": task,
        "schedule": one.times(app),
        "args": (message.model_dump(mode="json", exclude=message.new_defaults()),),
        "options": {
            "expires": min(one.interval_s or _LONGEST_WAIT_S, _LONGEST_WAIT_S),
            "argsrepr": f"{one.kind} {one.name}",
            "kwargsrepr": "",
        },
    }
