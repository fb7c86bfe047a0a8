"""The Celery task of a mirror that is due."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery import Celery, Task
from pydantic import ValidationError

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.tasks import BROKER_TROUBLE, MAX_BROKER_RETRIES, retry_broker
from snapferry.workers.broker.connection import BrokerUnavailable, client
from snapferry.workers.ledger import MirrorLedger
from snapferry.workers.messages import MirrorMessage
from snapferry.workers.settings.environment import Settings

from .status import last_job

log = logging.getLogger(__name__)

# While an orchestrator queues the job of a mirror, another one leaves the mirror alone for this many seconds.
_TAKEN_S: Final = 30


def register(app: Celery, settings: Settings) -> None:
    """Add the task to *app*."""

    @app.task(shared=False, name="snapferry.run_mirror", bind=True, max_retries=MAX_BROKER_RETRIES)
    def run(self: Task, message: dict[str, Any]) -> str:
        try:
            return run_mirror(settings, MirrorMessage.model_validate(message))
        except ValidationError:
            log.warning(
                "mirror skipped: its message is of another version of snapferry; restart its scheduler"
            )
            return "skipped: the message is of another version"
        except (BrokerUnavailable, *BROKER_TROUBLE) as error:
            raise retry_broker(self, error) from error


def run_mirror(settings: Settings, message: MirrorMessage) -> str:
    """
    Queue the job of a mirror that is due, unless its last job has not ended; return what was done, in words for Flower.

    May be called again: a second call finds the job of the first. Raises what `Jobs` raises.
    """
    assert settings.broker_url is not None  # the app refuses settings without a broker
    mirrors, jobs = MirrorLedger(client(settings.broker_url)), Jobs(settings, check=False)
    with mirrors.taken(message.name, _TAKEN_S) as mine:
        return (
            _run(jobs, mirrors, message, settings.patience) if mine else "another orchestrator queues the job"
        )


def _run(jobs: Jobs, mirrors: MirrorLedger, message: MirrorMessage, patience_s: float) -> str:
    last = last_job(jobs, mirrors.record(message.name))
    if last is not None and not last.state.final:
        why = f"job {last.job_id} has not ended ({last.state})"
        mirrors.skipped(message.name, why)
        log.warning("mirror %s skipped: %s", message.name, why)
        return f"skipped: {why}"
    job_id = jobs.submit(message.job_spec(patience=patience_s))
    mirrors.started(message.name, job_id)
    log.info("mirror %s: job %s queued", message.name, job_id)
    return f"job {job_id} queued"
