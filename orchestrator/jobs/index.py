"""
All jobs of a fleet, to be searched, filtered and sorted.

Thousands of jobs are read in a few requests. A job that has ended changes no more, so it is read again only now and
then: its record may expire, and a failed job may be continued.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import DISMISSED, SUPERSEDED, JobEntry, Ledger, State
from snapferry.workers.messages import Action

# Seconds after which the entry of a job that failed, or that ended otherwise, is read again.
FAILED_S: Final = 10.0
ENDED_S: Final = 60.0

# Continuations that are followed, so that a circle in a damaged Redis ends.
_LONGEST_CHAIN: Final = 100


class Sort(StrEnum):
    """What a list of jobs is sorted by. AGE: since the end, or since the submission of an open job."""

    SUBMITTED = "submitted"
    STATE = "state"
    PROGRESS = "progress"
    SNAPSHOTS = "snapshots"
    FAILED = "failed"
    THROUGHPUT = "throughput"
    AGE = "age"


@dataclass(frozen=True)
class JobQuery:
    """
    Which jobs are wanted, and in which order.

    *states*: in one of these, a `State`, `SUPERSEDED` or `DISMISSED`; empty: any. *text*: words of which each is in the
    job's id, in the URL of one of its stores, or in the name of its mirror or scrub, or is its action. *store*: the URL
    of a store without its options. *upwards*: the smallest first, and the oldest.
    """

    states: Collection[str] = ()
    text: str = ""
    store: str = ""
    sort: Sort = Sort.SUBMITTED
    upwards: bool = False


@dataclass(frozen=True)
class Selection:
    """
    The ids of the jobs that a query selects, in its order.

    *by_state* counts the jobs that are selected but for their state, *stores* those that are selected but for their
    state and their store, by the URLs of their stores without options.
    """

    job_ids: list[str]
    by_state: Counter[str]
    stores: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Listing:
    """All jobs at one moment, the latest first: each with its state as lists show it, and its stores."""

    jobs: list[tuple[JobEntry, str, frozenset[str]]]

    def by_state(self) -> Counter[str]:
        """Return the number of jobs in each state."""
        return Counter(state for _, state, _ in self.jobs)

    def of_states(self, *states: str) -> list[JobEntry]:
        """Return the jobs in one of *states*, the latest first."""
        return [entry for entry, state, _ in self.jobs if state in states]

    def select(self, query: JobQuery) -> Selection:
        """Return the jobs that *query* selects."""
        words = printable(query.text).casefold().split()
        found = self.jobs
        if words:
            found = [each for each in found if all(_has(each[0], each[2], word) for word in words)]
        of_store = [each for each in found if query.store in each[2]] if query.store else found
        chosen = [each for each in of_store if not query.states or each[1] in query.states]
        # The sort is stable, also when it is reversed: equal ones stay in the order of their submission.
        if query.sort is Sort.STATE:
            chosen.sort(key=lambda each: each[1], reverse=not query.upwards)
        elif query.sort is not Sort.SUBMITTED:
            key = _KEYS[query.sort]
            chosen.sort(key=lambda each: key(each[0]), reverse=not query.upwards)
        elif query.upwards:
            chosen.reverse()
        return Selection(
            [entry.job_id for entry, _, _ in chosen],
            Counter(state for _, state, _ in of_store),
            Counter(store for _, _, stores in found for store in stores),
        )


class JobIndex:
    """The index of all jobs in *ledger*. Its methods may be called from any thread, and raise as the ledger does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        # Held while jobs are read: a second thread does not read the same ones, but what is due afterwards.
        self._reading = threading.Lock()
        self._entries: dict[str, JobEntry] = {}
        self._stores: dict[str, frozenset[str]] = {}
        self._due: dict[str, float] = {}

    def listing(self) -> Listing:
        """Return all jobs as they are now."""
        with self._reading:
            return self._listing()

    def _listing(self) -> Listing:
        job_ids = self._ledger.job_ids()
        done = self._ledger.mirror_successes()
        now = time.monotonic()
        with self._lock:
            for gone in self._entries.keys() - set(job_ids):
                self._drop(gone)
            wanted = [job_id for job_id in job_ids if self._due.get(job_id, 0.0) <= now]
        read = {entry.job_id: entry for entry in self._ledger.entries(wanted)}
        with self._lock:
            for number, job_id in enumerate(wanted):
                entry = read.get(job_id)
                if entry is None:
                    self._drop(job_id)
                    continue
                self._entries[job_id] = entry
                self._stores[job_id] = stores_of(entry)
                if entry.state.final:
                    # Jobs that were read together are not all due together.
                    spread = 0.5 + number / (2 * len(wanted))
                    self._due[job_id] = now + (FAILED_S if entry.state is State.FAILED else ENDED_S * spread)
            entries, stores = dict(self._entries), dict(self._stores)
        return Listing(
            [
                (entry, _state(entry, entries, done), stores[job_id])
                for job_id in job_ids
                if (entry := entries.get(job_id))
            ]
        )

    def _drop(self, job_id: str) -> None:
        for kept in (self._entries, self._stores, self._due):
            kept.pop(job_id, None)


def stores_of(entry: JobEntry) -> frozenset[str]:
    """Return the URLs of the stores of a job, without options."""
    return frozenset(url.partition("?")[0] for url in (entry.source, entry.destination) if url)


def _has(entry: JobEntry, stores: Iterable[str], word: str) -> bool:
    return (
        word in entry.job_id.casefold()
        or word in entry.schedule
        or word == (entry.action or Action.COPY)
        or any(word in store.casefold() for store in stores)
    )


def _state(entry: JobEntry, known: Mapping[str, JobEntry], done: Mapping[str, float]) -> str:
    """Return the state of a job as lists show it. *done*: when mirrors last succeeded, by name."""
    if entry.state is not State.FAILED:
        return str(entry.state)
    if done.get(entry.mirror, 0.0) > entry.ended_at > 0:
        return SUPERSEDED
    last = entry
    for _ in range(_LONGEST_CHAIN):
        further = known.get(last.continued_by)
        if further is None:
            break
        if further.state is State.DONE:
            return SUPERSEDED
        last = further
    return DISMISSED if entry.dismissed or (last.dismissed and not last.continued_by) else str(entry.state)


def _progress(entry: JobEntry) -> float:
    well = entry.objects_settled if not entry.state.final else entry.copied + entry.present
    return well / entry.objects_total if entry.objects_total > 0 and not entry.partly_planned else 0.0


def _throughput(entry: JobEntry) -> float:
    seconds = (entry.ended_at or time.time()) - entry.started_at if entry.started_at else 0.0
    return entry.bytes_copied / seconds if seconds > 0 else 0.0


# All but the state, which may be that of another job of the chain.
_KEYS: Final[dict[Sort, Callable[[JobEntry], float]]] = {
    Sort.PROGRESS: _progress,
    Sort.SNAPSHOTS: lambda entry: entry.snapshots_total,
    Sort.FAILED: lambda entry: entry.failed,
    Sort.THROUGHPUT: _throughput,
    # The oldest is the largest.
    Sort.AGE: lambda entry: -(entry.ended_at or entry.submitted_at),
}
