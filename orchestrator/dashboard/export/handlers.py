"""Requests to files, which are sent while they are made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from snapferry.orchestrator.dashboard.guarded import JOB, Guarded, Problem, title_of
from snapferry.orchestrator.dashboard.views.jobs import PARAMETERS, query_of
from snapferry.orchestrator.dashboard.views.sources import Sources
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob

from . import rows
from .failures import FailureLists, Incomplete

log = logging.getLogger(__name__)

# Characters that are sent together.
PIECE: Final = 64 * 1024

TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
}

_FINISHED: Final = object()


class Export(Guarded):
    """A file that is made while it is sent. The first piece comes before the answer, so that errors have pages."""

    # Ends what makes the pieces, from any thread.
    stop: Callable[[], None] = staticmethod(lambda: None)
    # The browser has closed the connection.
    left = False

    async def send(self, lines: Iterator[str], name: str, kind: str) -> None:
        """Send *lines* as the file *name*, of a *kind* of `TYPES`."""
        pieces = _pieces(lines)
        try:
            piece = await self._next(pieces)
            self.set_header("Content-Type", TYPES[kind])
            self.set_header("Content-Disposition", f'attachment; filename="{name}.{kind}"')
            while piece is not _FINISHED:
                self.write(piece)
                await self.flush()
                piece = await self._next(pieces)
            await self.finish()
        except (Exception, asyncio.CancelledError) as error:
            if not self._headers_written:
                raise
            # What was sent so far must not look like the whole file, whether the list broke off or the server ends.
            connection: Any = self.request.connection
            connection.stream.close()
            wanted = not (self.left or isinstance(error, StreamClosedError | asyncio.CancelledError))
            log.log(logging.WARNING if wanted else logging.DEBUG, "export incomplete: %s", error)
        finally:
            await self._in_pool(self.stop)

    async def _next(self, pieces: Iterator[str]) -> Any:
        return await self._in_pool(lambda: next(pieces, _FINISHED))

    async def _in_pool(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.settings["pool"], call)

    def on_connection_close(self) -> None:
        """Stop: nobody waits for the file any more."""
        super().on_connection_close()
        self.left = True
        self.settings["pool"].submit(self.stop)


class ExportJobs(Export):
    """The jobs that the parameters select, as on the list of jobs."""

    async def get(self, kind: str) -> None:
        """Send the file."""
        sources: Sources = self.settings["sources"]
        query = query_of({name: self.get_query_argument(name, "") for name in PARAMETERS})
        documents = (status_document(status) for status in sources.jobs.each(query))
        write = rows.jobs_csv if kind == "csv" else rows.jobs_json
        try:
            await self.send(write(documents), "snapferry-jobs", kind)
        except BrokerUnavailable as error:
            raise _broker_down(error) from error

    def head(self, kind: str) -> None:
        """Answer without the file."""
        self.set_header("Content-Type", TYPES[kind])


class ExportFailures(Export):
    """The failed objects of a job, with the paths that need them."""

    async def get(self, job_id: str, kind: str) -> None:
        """Send the file."""
        sources: Sources = self.settings["sources"]
        lists: FailureLists = self.settings["failure_lists"]
        try:
            await self._in_pool(lambda: sources.jobs.status(job_id))
        except UnknownJob as error:
            raise HTTPError(HTTPStatus.NOT_FOUND) from error
        except BrokerUnavailable as error:
            raise _broker_down(error) from error
        found = await self._in_pool(lambda: lists.open(job_id))
        if found is None:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Other exports of failed objects are being made",
                "Try again when they are complete.",
                back=f"/jobs/{job_id}",
            )
        self.stop = found.close
        write = rows.failures_csv if kind == "csv" else rows.failures_json
        try:
            await self.send(write(found.documents()), f"snapferry-failures-{job_id[:8]}", kind)
        except Incomplete as error:
            raise Problem(
                HTTPStatus.CONFLICT,
                "The failed objects cannot be listed",
                f"{error}.",
                back=f"/jobs/{job_id}",
            ) from error

    def head(self, job_id: str, kind: str) -> None:
        """Answer without the file."""
        self.set_header("Content-Type", TYPES[kind])


ROUTES: Final[list[tuple[str, type[Guarded]]]] = [
    (r"/export/jobs\.(csv|json)", ExportJobs),
    (rf"/jobs/{JOB}/failures\.(csv|jsonl)", ExportFailures),
]


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """Yield *lines* in pieces of about `PIECE` characters."""
    kept: list[str] = []
    length = 0
    for line in lines:
        kept.append(line)
        length += len(line)
        if length >= PIECE:
            yield "".join(kept)
            kept, length = [], 0
    if kept:
        yield "".join(kept)


def _broker_down(error: BrokerUnavailable) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, title_of(error), f"{error}. Try again when it is back.")
