"""The Celery tasks of mirrors and scrubs that are due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from pydantic import ValidationError

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.tasks import BROKER_TROUBLE, MAX_BROKER_RETRIES, retry_broker
from snapferry.workers.broker.connection import BrokerUnavailable, client
from snapferry.workers.ledger import ScheduleLedger, ScrubLedger
from snapferry.workers.messages import JobSpec, MirrorMessage, ScrubMessage
from snapferry.workers.settings.environment import Settings

from .cycle import next_job
from .due import queue_due
from .schedule import RUN_MIRROR, RUN_SCRUB

log = logging.getLogger(__name__)


def register(app: Celery, settings: Settings) -> None:
    """Add the tasks to *app*."""
    _register(
        app, RUN_MIRROR, "mirror", lambda found: run_mirror(settings, MirrorMessage.model_validate(found))
    )
    _register(app, RUN_SCRUB, "scrub", lambda found: run_scrub(settings, ScrubMessage.model_validate(found)))


def _register(app: Celery, name: str, kind: str, run: Callable[[dict[str, Any]], str]) -> None:
    @app.task(shared=False, name=name, bind=True, max_retries=MAX_BROKER_RETRIES)
    def run_due(self: Task, message: dict[str, Any]) -> str:
        try:
            return run(message)
        except ValidationError:
            log.warning(
                "%s skipped: its message is of another version of snapferry; restart its scheduler", kind
            )
            return "skipped: the message is of another version"
        except (BrokerUnavailable, *BROKER_TROUBLE) as error:
            raise retry_broker(self, error) from error


def run_mirror(settings: Settings, message: MirrorMessage) -> str:
    """
    Queue the job of a mirror that is due, unless its last job has not ended; return what was done, in words for Flower.

    May be called again: a second call finds the job of the first. Raises what `Jobs` raises.
    """
    mirrors = ScheduleLedger(client(_broker(settings)), "mirror")
    return _run(settings, mirrors, message.name, lambda: message.job_spec(patience=settings.patience))


def run_scrub(settings: Settings, message: ScrubMessage) -> str:
    """Queue the next job of a scrub that is due; otherwise as `run_mirror`."""
    scrubs = ScrubLedger(client(_broker(settings)))
    return _run(settings, scrubs, message.name, lambda: next_job(scrubs, message, settings.patience))


def _run(settings: Settings, records: ScheduleLedger, name: str, spec: Callable[[], JobSpec]) -> str:
    done = queue_due(Jobs(settings, check=False), records, name, spec)
    return f"skipped: {done.skipped}" if done.skipped else f"job {done.job_id} queued"


def _broker(settings: Settings) -> str:
    assert settings.broker_url is not None  # the app refuses settings without a broker
    return settings.broker_url
