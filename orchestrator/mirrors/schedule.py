"""
The schedule of the mirrors, which Celery beat keeps.

Beat only sends a message that a mirror is due. The orchestrator that takes the message decides whether the mirror
runs: not while its last job has not ended. The schedule is kept in Redis (RedBeat). It survives restarts, and one of
several schedulers works.
"""

from __future__ import annotations

from typing import Any, Final

from celery import Celery

from snapferry.orchestrator.jobs import store_pair
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger.keys import SCHEDULE
from snapferry.workers.messages import Limits, MirrorMessage, Prune
from snapferry.workers.settings.config_file import Config, Mirror
from snapferry.workers.settings.environment import InvalidSettings, Settings

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
    """Set Celery beat, run from *app*, to the schedule of *config*. Raises `InvalidSettings`."""
    assert settings.broker_url is not None  # make_fleet_app refuses settings without a broker
    app.conf.update(
        beat_scheduler="snapferry.orchestrator.mirrors.scheduler.MirrorScheduler",
        beat_max_loop_interval=LOOP_S,
        beat_schedule={mirror.name: _entry(app, mirror, config) for mirror in config.mirror},
        redbeat_redis_url=settings.broker_url,
        redbeat_redis_options={},
        redbeat_key_prefix=SCHEDULE,
        redbeat_lock_timeout=TAKE_OVER_S,
    )
    # RedBeat's own client takes no unix socket, and waits forever on a half-open connection.
    app.redbeat_redis = client(settings.broker_url)


def _entry(app: Celery, mirror: Mirror, config: Config) -> dict[str, Any]:
    message = message_of(mirror, config)
    return {
        "task": "snapferry.run_mirror",
        "schedule": mirror.times(app),
        "args": (message.model_dump(mode="json", exclude=message.new_defaults()),),
        "options": {
            "expires": min(mirror.interval_s or _LONGEST_WAIT_S, _LONGEST_WAIT_S),
            "argsrepr": f"mirror {mirror.name}",
            "kwargsrepr": "",
        },
    }
