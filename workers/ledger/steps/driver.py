"""The driver of a job: the one orchestrator that decides on the job's next step."""

from __future__ import annotations

from typing import Final

from redis.exceptions import NoPermissionError, ResponseError

from snapferry.stores.text.printable import printable
from snapferry.workers.job_state import State, partly_planned
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import job_key, job_keys
from snapferry.workers.ledger.state import Standing, UnknownJob, UnreadableJob
from snapferry.workers.redis_json import parse_json

from . import leases

# A job whose orchestrators died so often while they drove it is given up: it probably kills them.
MAX_DRIVES: Final = 15


class DriverLedger(LedgerBase):
    """The leases of drivers, and what they decide by. Every method may be repeated, except `start_driving`."""

    def start_driving(self, job_id: str, holder: str, *, instead_of: str = "") -> int:
        """
        Let *holder* alone drive the job for `LEASE_S` seconds. Return how often it was driven without an end.

        Return 0 if another orchestrator drives the job: `stop_driving` tells it to look once more. Return -1 if there
        is no such job. *instead_of* names a driver that is known to be dead.
        """
        arguments: list[str | float] = [holder, instead_of, leases.LEASE_S]
        return int(self._run(scripts.START_DRIVING, job_keys(job_id, "", "driver"), arguments))

    def keep_driving(self, job_id: str, holder: str) -> None:
        """Renew the lease of *holder* on the job."""
        self._run(scripts.KEEP_DRIVING, job_keys(job_id, "driver"), [holder, leases.LEASE_S])

    def stop_driving(self, job_id: str, holder: str, *, look_again: bool = True) -> bool:
        """
        End the lease of *holder* on the job.

        Return True, and keep the lease, if another orchestrator wanted to drive the job meanwhile: then look once more.
        """
        arguments: list[str | float] = [holder, leases.LEASE_S, int(look_again)]
        return bool(self._run(scripts.STOP_DRIVING, job_keys(job_id, "", "driver"), arguments))

    def driver(self, job_id: str) -> str:
        """Return the holder that drives the job, "" if there is none."""
        return str(self._redis.get(job_key(job_id, "driver")) or "")

    def driven(self, job_id: str) -> bool:
        """Return whether an orchestrator drives the job."""
        return bool(self._redis.exists(job_key(job_id, "driver")))

    def standing(self, job_id: str) -> Standing:
        """Return what decides on the job's next step. Raises `UnknownJob`."""
        return self.neglected(job_id)[0]

    def neglected(self, job_id: str) -> tuple[Standing, bool]:
        """Return what `standing` returns, and whether the last driver died before it ended. Raises `UnknownJob`."""
        try:
            return self._read_standing(job_id)
        except NoPermissionError:
            raise
        except (ValueError, TypeError, ResponseError) as error:
            # A field is not a number, or a key has another type.
            raise UnreadableJob(job_id, printable(str(error)[:200])) from error

    def _read_standing(self, job_id: str) -> tuple[Standing, bool]:
        parts = job_keys(job_id, "", "leases", "held", "heals", "driver", "holders")
        found = self._run(scripts.STANDING, parts, [])
        if not found:
            raise UnknownJob(job_id)
        job, expired, overdue, leased, running, held, heals, driven = found
        turns = {int(group): parse_json(turn) for group, turn in zip(heals[::2], heals[1::2], strict=True)}
        standing = Standing(
            state=State(job[0]),
            paused=bool(job[1]),
            cancelling=bool(job[2]),
            handed=int(job[3] or 0),
            done=int(job[4] or 0),
            failed=int(job[5] or 0),
            expired=tuple(expired),
            overdue=tuple(overdue),
            held=tuple(held),
            leased=int(leased),
            running=int(running),
            idle_s=float(job[6]),
            heals={group: (turn, batches) for group, (turn, batches) in turns.items()},
            stalls=int(job[7] or 0),
            stalled_done=int(job[8] or 0),
            waiting=bool(job[10]),
            begins=int(job[11] or 0),
            stalled_begins=int(job[12] or 0),
            bounded=str(job[13]),
            partly_planned=partly_planned(int(job[14] or 0), int(job[15] or 0)),
        )
        return standing, not driven and int(job[9] or 0) > 0
