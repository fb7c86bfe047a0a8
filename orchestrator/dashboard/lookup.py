"""
Which snapshots and paths wait for the objects that failed in a job.

Only the manifests know, and to read them can take long and much memory. So a
process of its own reads them and files what it finds in a small database of
this machine, of which the pages read one page at a time. One job is looked up
at once. What is filed goes when the dashboard ends.
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
from snapferry.orchestrator.planning.prepare import SourceChanged, forget
from snapferry.orchestrator.reporting.failures import DeadLetter
from snapferry.stores.errors import StoreError
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .pages import clip

log = logging.getLogger(__name__)

# Jobs of which what was found is kept, and how much is filed of one.
JOBS_KEPT: Final = 16
MOST_BYTES: Final = 256 * 1024**2

# Places that are kept of an object, and the longest path.
PLACES_KEPT: Final = 10
LONGEST_PATH: Final = 300

# A job in which more failed meanwhile is looked up again after so many seconds, and this many times what it took.
AGAIN_S: Final = 15.0
AGAIN_TIMES: Final = 5

# Written to the file together.
_CHUNK: Final = 500


@dataclass(frozen=True)
class Found:
    """
    Failed objects with their places, as they are filed.

    *letters* are those that were asked for, documents of `document`; *known* is how many are filed in all.
    *done*: that is all there was; *problem* says why it is not, if it is not.
    """

    letters: list[dict[str, Any]]
    known: int = 0
    done: bool = False
    problem: str = ""


@dataclass
class _Search:
    """One look-up: its file, its process while it runs, and how many objects had failed when it began."""

    path: Path
    failed: int
    began: float
    process: BaseProcess | None
    took_s: float = 0.0
    broken: bool = False


class Lookup:
    """
    Finds the places of failed objects. To be entered; leaving it ends what runs and removes what was found.

    All methods may be called from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._running: _Search | None = None
        # By job: the last one that came to its end, if any, and the one after it.
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
        Return what is known of *count* of a job's *failed* objects, from the *first* on; see to it that more will be.

        Never waits for a store. To be called again: what is missing comes.
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
        # The older one is whole; the newer one counts as soon as it is.
        readings = [_read(path, first, count) for path in paths]
        found = next((one for one in reversed(readings) if one.done), readings[0] if readings else Found([]))
        if broken and not found.done:
            return Found(found.letters, found.known, problem=found.problem or "the look-up broke off")
        return found

    def _start(self, job_id: str, searches: list[_Search], failed: int) -> None:
        self._numbers += 1
        path = Path(self._folder.name) / f"{self._numbers}.sqlite"
        # Not forked: this process has threads. Without a database the reader would find no table.
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
            log.warning("a look-up of failed objects ended with exit code %s", running.process.exitcode)
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
    return time.monotonic() - last.began - last.took_s > max(AGAIN_S, AGAIN_TIMES * last.took_s)


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
        return Found([], problem=f"what was found cannot be read: {error}")
    problem = ends[0] if ends else ""
    return Found([json.loads(row[0]) for row in rows], known, bool(ends) and not problem, problem)


def search_places(settings: Settings, job_id: str, path: str) -> None:
    """Find the places of all objects that failed in a job, and file them in the database at *path*."""
    os.nice(10)
    problem = ""
    with closing(sqlite3.connect(path, timeout=30)) as database:
        # Lost with the machine, and that is no loss.
        database.execute("PRAGMA synchronous = OFF")
        try:
            _file(Jobs(settings, check=False, role="the dashboard"), job_id, database)
        except (StoreError, SourceChanged, BrokerUnavailable, InvalidSettings, _TooMuch) as error:
            problem = str(error) or type(error).__name__
        except UnknownJob:
            problem = "the job's record is gone"
        except ValidationError:
            problem = "the job was submitted by another version of snapferry"
        with database:
            database.execute("INSERT INTO ends VALUES (?)", (clip(problem),))


class _TooMuch(Exception):
    """More places than are kept; the message says what to do."""


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
                    f"this is more than the dashboard keeps; all of it: snapferry failures {job_id}"
                )
    finally:
        if jobs.status(job_id).state.final:
            # What is remembered of a job that goes on is its orchestrators' as well, on their machine.
            forget(job_id)


def document(letter: DeadLetter) -> dict[str, Any]:
    """Return what a page shows of an object that failed, in bounded size."""
    failure = letter.known.failure if letter.known else None
    return {
        "address": letter.address,
        "error": failure.error if failure else "",
        "store": clip(failure.store) if failure else "",
        "detail": clip(failure.detail) if failure else "",
        "attempts": letter.known.attempts if letter.known else 0,
        "worker": clip(letter.known.worker) if letter.known else "",
        "places": [[snapshot, clip(path, LONGEST_PATH)] for snapshot, path in letter.places[:PLACES_KEPT]],
        "places_total": letter.places_total,
    }
