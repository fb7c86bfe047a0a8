"""
The snapshots and paths that need the failed objects of a job.

Only the manifests have them, and reading manifests can take much time and memory. A process of its own reads them and
writes what it finds into a small database on this machine, from which a view reads one page at a time. One job is
looked up at a time. The databases are removed when the dashboard ends.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sqlite3
import tempfile
import threading
import time
from collections import OrderedDict
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, Self

from pydantic import ValidationError

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.planning.prepare import forget
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.stores.errors import StoreError
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .pages import clip

log = logging.getLogger(__name__)

# Jobs whose databases are kept, and the largest size of one.
JOBS_KEPT: Final = 16
MOST_BYTES: Final = 256 * 1024**2

# Places of an object that are kept, and the longest path.
PLACES_KEPT: Final = 10
LONGEST_PATH: Final = 300

# If more objects have failed since, a job is looked up again after this many seconds, and at least REST_FACTOR times as
# long as the last look-up took.
AGAIN_S: Final = 15.0
REST_FACTOR: Final = 5

# Objects that are written to the database together.
_CHUNK: Final = 500


@dataclass(frozen=True)
class Found:
    """
    Failed objects with their places.

    *letters* are the documents that were asked for (`document`); *known* is how many the database has. *done*: the
    look-up found all; *problem*: why it did not.
    """

    letters: list[dict[str, Any]]
    known: int = 0
    done: bool = False
    problem: str = ""


@dataclass
class _Search:
    """A look-up: its database, its process while it runs, and how many objects had failed when it began."""

    path: Path
    failed: int
    began: float
    process: BaseProcess | None
    took_s: float = 0.0
    broken: bool = False


class Lookup:
    """
    Finds the places of failed objects. Must be entered; its exit kills the running look-up and removes the databases.

    All methods may be called from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._running: _Search | None = None
        # By job: the last look-up that completed, if any, and the one after it.
        self._searches: OrderedDict[str, list[_Search]] = OrderedDict()
        self._numbers = 0

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="snapferry-dashboard-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            process = self._running.process if self._running else None
            if process is not None:
                process.kill()
                process.join(10)
        self._folder.cleanup()

    def find(self, job_id: str, *, failed: int, first: int, count: int) -> Found:
        """
        Return what is known of *count* of a job's *failed* objects, from the *first* on; start a look-up if one is due.

        Never waits for a store. A later call finds more.
        """
        with self._lock:
            self._reap()
            searches = self._searches.setdefault(job_id, [])
            self._searches.move_to_end(job_id)
            if self._running is None and _due(searches, failed):
                self._start(job_id, searches, failed)
            while len(self._searches) > JOBS_KEPT:
                self._drop(self._searches.popitem(last=False)[1])
            paths = [search.path for search in searches]
            broken = any(search.broken for search in searches[-1:])
        # The older look-up is complete; the newer one counts as soon as it is.
        readings = [_read(path, first, count) for path in paths]
        found = next((one for one in reversed(readings) if one.done), readings[0] if readings else Found([]))
        if broken and not found.done:
            return Found(
                found.letters, found.known, problem=found.problem or "the look-up failed, see the log"
            )
        return found

    def _start(self, job_id: str, searches: list[_Search], failed: int) -> None:
        self._numbers += 1
        path = Path(self._folder.name) / f"{self._numbers}.sqlite"
        # Spawned, because this process has threads. The tables are made here, so that a reader always finds them.
        with closing(sqlite3.connect(path)) as database:
            database.executescript(_TABLES)
        process = multiprocessing.get_context("spawn").Process(
            target=search_places,
            args=(self._settings, job_id, str(path)),
            name="snapferry-lookup",
            daemon=True,
        )
        process.start()
        while len(searches) > 1:
            self._drop([searches.pop()])
        self._running = _Search(path, failed, time.monotonic(), process)
        searches.append(self._running)

    def _reap(self) -> None:
        running = self._running
        if running is None or running.process is None or running.process.is_alive():
            return
        running.took_s = time.monotonic() - running.began
        running.broken = running.process.exitcode != 0
        if running.broken:
            log.warning("look-up failed: exit code %s", running.process.exitcode)
        running.process.join()
        running.process = self._running = None
        for searches in self._searches.values():
            if running in searches and _read(running.path, 0, 0).done:
                self._drop(searches[: searches.index(running)])
                del searches[: searches.index(running)]

    def _drop(self, searches: list[_Search]) -> None:
        for search in searches:
            if search.process is not None:
                search.process.kill()
                search.process.join(10)
                self._running = None
            with suppress(OSError):
                search.path.unlink()


def _due(searches: list[_Search], failed: int) -> bool:
    if not searches:
        return True
    last = searches[-1]
    whole = not last.broken and _read(last.path, 0, 0).done
    if whole and last.failed == failed:
        return False
    return time.monotonic() - last.began - last.took_s > max(AGAIN_S, REST_FACTOR * last.took_s)


_TABLES: Final = """
CREATE TABLE letters (number INTEGER PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE ends (problem TEXT NOT NULL);
"""


def _read(path: Path, first: int, count: int) -> Found:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
            ends = database.execute("SELECT problem FROM ends").fetchone()
            (known,) = database.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM letters").fetchone()
            rows = database.execute(
                "SELECT document FROM letters WHERE number >= ? ORDER BY number LIMIT ?", (first, count)
            ).fetchall()
    except sqlite3.Error as error:
        return Found([], problem=f"cannot read the database of the look-up: {error}")
    problem = ends[0] if ends else ""
    return Found([json.loads(row[0]) for row in rows], known, bool(ends) and not problem, problem)


def search_places(settings: Settings, job_id: str, path: str) -> None:
    """Write the places of all failed objects of a job into the database at *path*; runs in a process of its own."""
    os.nice(10)
    problem = ""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        # The database need not survive a crash of the machine.
        database.execute("PRAGMA synchronous = OFF")
        try:
            _file(Jobs(settings, check=False, role="the dashboard"), job_id, database)
        except (StoreError, SourceChanged, BrokerUnavailable, InvalidSettings, _TooMuch) as error:
            problem = str(error) or type(error).__name__
        except UnknownJob:
            problem = "the job's record has expired"
        except ValidationError:
            problem = "another version of snapferry submitted the job"
        with database:
            database.execute("INSERT INTO ends VALUES (?)", (clip(problem),))


class _TooMuch(Exception):
    """There are more places than the database may hold; the message says what to do."""


def _file(jobs: Jobs, job_id: str, database: sqlite3.Connection) -> None:
    letters = enumerate(jobs.failures(job_id))
    filed = 0
    try:
        while some := list(islice(letters, _CHUNK)):
            rows = [(number, json.dumps(document(letter))) for number, letter in some]
            with database:
                database.executemany("INSERT INTO letters VALUES (?, ?)", rows)
            filed += sum(len(text) for _, text in rows)
            if filed > MOST_BYTES:
                raise _TooMuch(
                    f"there are more than the dashboard keeps. For all of them: snapferry failures {job_id}"
                )
    finally:
        if jobs.status(job_id).state.final:
            # The plan of an open job is cached for its orchestrators as well, if they run on this machine.
            forget(job_id)


def document(letter: DeadLetter) -> dict[str, Any]:
    """Return what a page shows of a failed object, in bounded size."""
    failure = letter.known.failure if letter.known else None
    return {
        "address": letter.address,
        "path": clip(letter.path, LONGEST_PATH),
        "error": failure.error if failure else "",
        "store": clip(failure.store) if failure else "",
        "detail": clip(letter.reason),
        "attempts": letter.known.attempts if letter.known else 0,
        "worker": clip(letter.known.worker) if letter.known else "",
        "places": [[snapshot, clip(path, LONGEST_PATH)] for snapshot, path in letter.places[:PLACES_KEPT]],
        "places_total": letter.places_total,
    }
