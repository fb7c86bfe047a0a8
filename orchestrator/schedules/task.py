"""The Celery tasks of mirrors and scrubs that are due."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, Task
from pydantic import ValidationError

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.tasks import BROKER_TROUBLE, MAX_BROKER_RETRIES, retry_broker
from snapferry.workers.broker.connection import BrokerUnavailable, client
from snapferry.workers.ledger import ScheduleLedger, ScrubLedger
from snapferry.workers.messages import JobSpec, MirrorMessage, ScrubMessage
from snapferry.workers.settings.environment import Settings

from .cycle import next_job
from .schedule import RUN_MIRROR, RUN_SCRUB
from .status import last_job

log = logging.getLogger(__name__)

# While an orchestrator queues a job, another one leaves the mirror or scrub alone for this many seconds.
_TAKEN_S: Final = 30


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
    with records.taken(name, _TAKEN_S) as mine:
        if not mine:
            return "another orchestrator queues the job"
        jobs = Jobs(settings, check=False)
        last = last_job(jobs, records.record(name))
        if last is not None and not last.state.final:
            why = f"job {last.job_id} has not ended ({last.state})"
            records.skipped(name, why)
            log.warning("%s %s skipped: %s", records.kind, name, why)
            return f"skipped: {why}"
        job_id = jobs.submit(spec(), schedule=f"{records.kind}:{name}")
        records.started(name, job_id)
        log.info("%s %s: job %s queued", records.kind, name, job_id)
        return f"job {job_id} queued"


def _broker(settings: Settings) -> str:
    assert settings.broker_url is not None  # the app refuses settings without a broker
    return settings.broker_url
