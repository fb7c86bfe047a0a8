"""The worker's Celery tasks: decode the message of a batch and copy the batch, or parts of an object."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from pydantic import ValidationError

from snapferry.stores.access import AccessPolicy
from snapferry.workers.broker.open_ledger import open_ledger
from snapferry.workers.messages import BatchMessage, identify_batch
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import about

from . import time_limit
from .delivery import run_batch
from .parts.asking import COPY_PARTS
from .parts.joining import NOTHING, join_copy
from .requeue import MAX_RETRIES, STEP_ASIDE_S, is_active, requeue_for_other_version
from .settle import ObjectsFailed


def register(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Add the worker's tasks to *app*. They open the stores that *access* allows."""

    @app.task(
        shared=False,
        name="snapferry.copy_batch",
        bind=True,
        max_retries=MAX_RETRIES,
        # The ledger has the reasons: no traceback in the log, and no record in Redis for each batch.
        throws=(ObjectsFailed,),
        store_errors_even_if_ignored=False,
    )
    def copy(self: Task[..., Any], message: dict[str, Any]) -> str:
        ledger = open_ledger(settings)
        try:
            batch = BatchMessage.model_validate(message)
        except ValidationError as error:
            reason = f"not a message of this version: {error.error_count()} faults"
            job, name = identify_batch(message)
            with about(job=job, batch=name, task=self.request.id):
                if not is_active(ledger, job):
                    raise RuntimeError(reason) from None
                ledger.note_retry(job, name, STEP_ASIDE_S)
                raise requeue_for_other_version(self, reason) from None
        with time_limit.enforced():
            return run_batch(self, batch, ledger, access)

    @app.task(shared=False, name=COPY_PARTS, bind=True, store_errors_even_if_ignored=False)
    def copy_parts(self: Task[..., Any], message: dict[str, Any]) -> str:
        try:
            batch = BatchMessage.model_validate(message)
        except ValidationError:
            # The worker that sent it copies the parts itself.
            return NOTHING
        with time_limit.enforced():
            # Well before the broker delivers the message again.
            return join_copy(self, batch, open_ledger(settings), access, settings.visibility_timeout / 3)
