"""Lists of jobs, and their statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from snapferry.workers.job_state import DISMISSED, SUPERSEDED, State
from snapferry.workers.ledger import entries, queries, scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.entries import JobEntry
from snapferry.workers.ledger.keys import INDEX, MIRROR_SUCCESSES, OPEN, job_key
from snapferry.workers.ledger.schedules import MOST_SCHEDULED, number_of
from snapferry.workers.ledger.state import Dismissal, JobStatus, RunningBatch, UnknownJob
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import is_job_id
from snapferry.workers.redis_json import parse_json

# Continuations that are followed from a job, so that a circle in a damaged Redis ends.
LONGEST_CHAIN: Final = 100


class JobListing(LedgerBase):
    """What is read of jobs; only `forget`, `forget_expired` and `claim_mark` write. Every method may be repeated."""

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
        """Return *statuses*, with `superseded` and `dismissed` set for failed jobs by what came after them."""
        failed = [status for status in statuses if status.state is State.FAILED]
        ends = self.ends({status.job_id: status.continued_by for status in failed if status.continued_by})
        done = self.mirror_successes() if any(status.mirror for status in failed) else {}
        changed: dict[str, JobStatus] = {}
        for status in failed:
            end = ends.get(status.job_id)
            if end == SUPERSEDED or done.get(status.mirror, 0.0) > status.ended_at > 0:
                changed[status.job_id] = replace(status, superseded=True)
            elif isinstance(end, Dismissal):
                changed[status.job_id] = replace(status, dismissed=status.dismissed or end)
        return [changed.get(status.job_id, status) for status in statuses]

    def ends(self, continued: Mapping[str, str]) -> dict[str, str | Dismissal]:
        """
        Return how the chains of *continued* ended: failed job -> the job that continues it.

        `SUPERSEDED` if a job of the chain is done, the dismissal of its last job if that was dismissed. The others are
        left out.
        """
        ended: dict[str, str | Dismissal] = {}
        ahead = dict(continued)
        for _ in range(LONGEST_CHAIN):
            if not ahead:
                break
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in ahead.values():
                    pipe.hmget(job_key(job_id), ["state", "continued_by", *queries.DISMISSAL_FIELDS])
                answers = pipe.execute(raise_on_error=False)
            before, ahead = ahead, {}
            for first, answer in zip(before, answers, strict=True):
                # An error is one of a record that is damaged.
                state, further, *dismissal = answer if isinstance(answer, list) else (None,) * 5
                if state == State.DONE:
                    ended[first] = SUPERSEDED
                elif further and is_job_id(further):
                    ahead[first] = further
                elif found := queries.dismissal_of(*dismissal):
                    ended[first] = found
        return ended

    def mirror_successes(self) -> dict[str, float]:
        """Return when each mirror last succeeded, in seconds since the epoch, by its name."""
        pairs: Any = self._redis.zrevrange(MIRROR_SUCCESSES, 0, MOST_SCHEDULED - 1, withscores=True)
        return {str(name): number_of(str(at)) for name, at in pairs}

    def states(self, job_ids: Sequence[str]) -> list[str]:
        """Return the state of each job, `SUPERSEDED` or `DISMISSED` where that applies, "" for an unknown job."""
        found: list[str] = []
        failed: list[str] = []
        for page in _pages(job_ids, 1000):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hget(job_key(job_id), "state")
                found += [str(state or "") for state in pipe.execute()]
        failed = [job_id for job_id, state in zip(job_ids, found, strict=True) if state == State.FAILED]
        after = {status.job_id: list_state(status) for status in self.statuses(failed)}
        return [after.get(job_id, state) for job_id, state in zip(job_ids, found, strict=True)]

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
        return list(filter(is_job_id, parse_json(str(self._run(scripts.JOB_IDS, [INDEX], [])))))

    def open_jobs(self) -> list[str]:
        """Return the ids of all jobs that have not ended."""
        return sorted(filter(is_job_id, map(str, self._redis.smembers(OPEN))))

    def forget(self, job_id: str) -> None:
        """Remove a job from the lists of jobs if its record has expired."""
        self._forget([job_id])

    def forget_expired(self, most: int) -> int:
        """Look at the *most* oldest jobs, and remove those whose records have expired; return how many were removed."""
        oldest = [str(job_id) for job_id in self._redis.zrange(INDEX, 0, most - 1)]
        return self._forget(oldest) if oldest else 0

    def _forget(self, job_ids: Sequence[str]) -> int:
        keys = [INDEX, OPEN, *(job_key(job_id) for job_id in job_ids)]
        return int(self._run(scripts.FORGET, keys, [*job_ids]))

    def claim_mark(self, name: str, seconds: int) -> bool:
        """Claim a mark for this many *seconds*, in which no other process can claim it. Return whether it was free."""
        return bool(self._redis.set(RedisKey(f"snapferry:mark:{name}"), "1", nx=True, ex=seconds))


def list_state(status: JobStatus) -> str:
    """Return the state of a job as lists show it: `SUPERSEDED` or `DISMISSED` where that applies."""
    if status.superseded:
        return SUPERSEDED
    return DISMISSED if status.dismissed is not None else str(status.state)


def _pages(job_ids: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(job_ids), length):
        yield job_ids[first : first + length]
