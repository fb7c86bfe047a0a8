"""
Keep a file with the open jobs and the schedules up to date, so that they outlive Redis.

Each orchestrator that is told to writes a file of its own. When Redis has lost its data, the file with what it had
stays beside the new one: an export names the data that it was made from.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from celery import Celery

from snapferry.orchestrator.periodic import Periodic
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import Ledger
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import fields

from .collect import as_text, export, instance
from .document import InvalidExport
from .files import read_export, write_file

log = logging.getLogger(__name__)

EVERY_S: Final = 60.0
"""Seconds between two exports."""

MOST_KEPT: Final = 20
"""Files of lost data that are kept. Where there are more, nothing is exported until some are removed."""


class ExportKeeper:
    """Keeps the export at *path*. Raises nothing at its making, and connects to nothing."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        # The data that the file is known to be of.
        self._instance = ""

    def round(self, ledger: Ledger) -> None:
        """Write the file anew. Raises `redis.exceptions.RedisError`; an error of the file is logged."""
        found = instance(ledger.client)
        try:
            if found != self._instance and not self._put_aside(found):
                return
            write_file(self._path, as_text(export(ledger, open_only=True)))
            self._instance = found
        except OSError as error:
            log.warning("jobs not exported to %s: %s", self._path, error.strerror or error)

    def _put_aside(self, found: str) -> bool:
        """Rename a file that is of other data than *found*; return whether the file may be written."""
        try:
            if read_export(self._path).instance == found:
                return True
            why = "Redis has lost its data, or is another server"
        except FileNotFoundError:
            return True
        except InvalidExport as error:
            why = f"the file cannot be read: {printable(str(error))}"
        if len(list(self._path.parent.glob(f"{self._path.name}.*.lost"))) >= MOST_KEPT:
            log.error("jobs not exported: %s already has %d files of lost data", self._path.parent, MOST_KEPT)
            return False
        aside = self._path.with_name(
            f"{self._path.name}.{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.lost"
        )
        # Two orchestrators may have been given the same file.
        if aside.exists():
            return False
        self._path.rename(aside)
        log.warning(
            "last export kept: %s; to submit its jobs again: snapferry jobs recover %s",
            why,
            aside,
            extra=fields(file=str(aside)),
        )
        return True


def attach(app: Celery, settings: Settings, path: str) -> None:
    """Keep an export at *path* for as long as a worker of *app* runs."""
    Periodic(
        "export",
        settings,
        ExportKeeper(path).round,
        every_s=EVERY_S,
        log=log,
        broker_down="cannot export jobs: the broker is down",
        uncaught="uncaught exception while exporting jobs",
    ).attach(app)
