"""Lists of jobs, and their statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from snapferry.workers.job_state import SUPERSEDED, State
from snapferry.workers.ledger import entries, queries, scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.entries import JobEntry
from snapferry.workers.ledger.keys import INDEX, OPEN, job_key
from snapferry.workers.ledger.state import JobStatus, RunningBatch, UnknownJob
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import is_job_id

# Continuations that are followed from a job, so that a circle in a damaged Redis ends.
LONGEST_CHAIN: Final = 100


class JobListing(LedgerBase):
    """What is read of jobs, without a write but for `forget` and `claim_mark`. Every method may be repeated."""

    def status(self, job_id: str) -> JobStatus:
        """Return the status of the job, of one moment. Raises `UnknownJob`."""
        (result,) = self._run(scripts.STATUSES, queries.keys_of_statuses([job_id]), queries.FIELDS)
        return self._with_ends([queries.status_of(job_id, result)])[0]

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return the statuses of jobs. Unknown jobs, and jobs that this version cannot read, are left out."""
        found: list[JobStatus] = []
        for page in _pages(job_ids, 100):
            results = self._run(scripts.STATUSES, queries.keys_of_statuses(page), queries.FIELDS)
            for job_id, result in zip(page, results, strict=True):
                with suppress(UnknownJob):
                    found.append(queries.status_of(job_id, result))
        return self._with_ends(found)

    def _with_ends(self, statuses: list[JobStatus]) -> list[JobStatus]:
        """Return *statuses*, with `superseded` set for failed jobs whose continuation is done."""
        continued = {
            status.job_id: status.continued_by
            for status in statuses
            if status.state is State.FAILED and status.continued_by
        }
        superseded = self.superseded(continued)
        return [replace(each, superseded=True) if each.job_id in superseded else each for each in statuses]

    def superseded(self, continued: Mapping[str, str]) -> set[str]:
        """
        Return those jobs of *continued* (failed job -> the job that continues it) whose continuation is done.

        A continuation that was itself continued counts by the last job of the chain.
        """
        superseded: set[str] = set()
        ahead = dict(continued)
        for _ in range(LONGEST_CHAIN):
            if not ahead:
                break
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in ahead.values():
                    pipe.hmget(job_key(job_id), ["state", "continued_by"])
                answers = pipe.execute(raise_on_error=False)
            before, ahead = ahead, {}
            for first, answer in zip(before, answers, strict=True):
                # An error is one of a record that is damaged.
                state, further = answer if isinstance(answer, list) else (None, None)
                if state == State.DONE:
                    superseded.add(first)
                elif further and is_job_id(further):
                    ahead[first] = further
        return superseded

    def states(self, job_ids: Sequence[str]) -> list[str]:
        """Return the state of each job, `SUPERSEDED` for a superseded one, "" for an unknown job."""
        found: list[str] = []
        continued: dict[str, str] = {}
        for page in _pages(job_ids, 1000):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hmget(job_key(job_id), ["state", "continued_by"])
                for job_id, (state, further) in zip(page, pipe.execute(), strict=True):
                    found.append(str(state or ""))
                    if state == State.FAILED and further and is_job_id(further):
                        continued[job_id] = further
        superseded = self.superseded(continued)
        return [
            SUPERSEDED if job_id in superseded else state
            for job_id, state in zip(job_ids, found, strict=True)
        ]

    def entries(self, job_ids: Sequence[str]) -> list[JobEntry]:
        """Return jobs as lists need them. Unknown jobs, and jobs without a readable state, are left out."""
        found: list[JobEntry] = []
        for page in _pages(job_ids, 1000):
            text = self._run(scripts.ENTRIES, [job_key(job_id) for job_id in page], entries.FIELDS)
            found += entries.entries_of(page, str(text))
        return found

    def running(self, job_ids: Sequence[str]) -> list[RunningBatch]:
        """Return the batches of these jobs that workers run at this moment: those with a valid lease."""
        found: list[RunningBatch] = []
        for page in _pages(job_ids, 100):
            seconds, *results = self._run(scripts.RUNNING, queries.keys_of_running(page), [])
            for job_id, result in zip(page, results, strict=True):
                found += queries.running_of(job_id, int(seconds), result)
        return found

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs, the latest first."""
        return list(filter(is_job_id, json.loads(str(self._run(scripts.JOB_IDS, [INDEX], [])))))

    def open_jobs(self) -> list[str]:
        """Return the ids of all jobs that have not ended."""
        return sorted(filter(is_job_id, map(str, self._redis.smembers(OPEN))))

    def forget(self, job_id: str) -> None:
        """Remove a job from the lists of jobs if its record has expired."""
        if not self._redis.exists(job_key(job_id)):
            self._redis.srem(OPEN, job_id)
            self._redis.zrem(INDEX, job_id)

    def claim_mark(self, name: str, seconds: int) -> bool:
        """Claim a mark for this many *seconds*, in which no other process can claim it. Return whether it was free."""
        return bool(self._redis.set(RedisKey(f"snapferry:mark:{name}"), "1", nx=True, ex=seconds))


def _pages(job_ids: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(job_ids), length):
        yield job_ids[first : first + length]
