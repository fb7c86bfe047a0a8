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
from snapferry.workers.copying.requeue import STEP_ASIDE_S, requeue
from snapferry.workers.ledger import ScheduleLedger, ScrubLedger
from snapferry.workers.messages import JobSpec, MirrorMessage, ScrubMessage
from snapferry.workers.settings.environment import Settings

from .cycle import next_job
from .due import Queued, queue_due
from .schedule import RUN_MIRROR, RUN_SCRUB

log = logging.getLogger(__name__)


def register(app: Celery, settings: Settings) -> None:
    """Add the tasks to *app*."""

    def mirror(message: dict[str, Any], message_id: str) -> Queued:
        return run_mirror(settings, MirrorMessage.model_validate(message), message_id)

    def scrub(message: dict[str, Any], message_id: str) -> Queued:
        return run_scrub(settings, ScrubMessage.model_validate(message), message_id)

    _register(app, RUN_MIRROR, "mirror", mirror)
    _register(app, RUN_SCRUB, "scrub", scrub)


def _register(app: Celery, name: str, kind: str, run: Callable[[dict[str, Any], str], Queued]) -> None:
    @app.task(shared=False, name=name, bind=True, max_retries=MAX_BROKER_RETRIES)
    def run_due(self: Task, message: dict[str, Any]) -> str:
        try:
            done = run(message, self.request.id)
        except ValidationError:
            log.warning(
                "%s skipped: its message is of another version of snapferry; restart its scheduler", kind
            )
            return "skipped: the message is of another version"
        except (BrokerUnavailable, *BROKER_TROUBLE) as error:
            raise retry_broker(self, error) from error
        if done.busy:
            # If that process died, its lock expires.
            raise requeue(self, done.skipped, in_s=STEP_ASIDE_S)
        return f"skipped: {done.skipped}" if done.skipped else f"job {done.job_id} queued"


def run_mirror(settings: Settings, message: MirrorMessage, message_id: str) -> Queued:
    """
    Queue the job of a mirror that is due, unless its last job has not ended; return what was done.

    May be called again: a second call with the same *message_id* finds the job of the first. Raises what `Jobs` raises.
    """
    mirrors = ScheduleLedger(client(_broker(settings)), "mirror")

    def spec() -> JobSpec:
        return message.job_spec(patience=settings.patience)

    return queue_due(Jobs(settings, check=False), mirrors, message.name, spec, message_id=message_id)


def run_scrub(settings: Settings, message: ScrubMessage, message_id: str) -> Queued:
    """Queue the next job of a scrub that is due; otherwise as `run_mirror`."""
    scrubs = ScrubLedger(client(_broker(settings)))

    def spec() -> JobSpec:
        return next_job(scrubs, message, settings.patience)

    return queue_due(Jobs(settings, check=False), scrubs, message.name, spec, message_id=message_id)


def _broker(settings: Settings) -> str:
    assert settings.broker_url is not None  # the app refuses settings without a broker
    return settings.broker_url
