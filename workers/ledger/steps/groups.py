"""Groups of snapshots: how they ended, and missing objects that are copied again ("healing")."""

from __future__ import annotations

import json
from typing import Any

from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import WORKING, done_key, job_key, job_keys


class GroupLedger(LedgerBase):
    """The groups of a job. Every method may be repeated with the same arguments."""

    def note_healing(self, job_id: str, group: int, *, turn: int, batches: int) -> None:
        """Note that *batches* batches copy missing objects of *group* again, for the *turn*-th time."""
        self._redis.hset(job_key(job_id, "heals"), str(group), json.dumps([turn, batches]))
        self._redis.expire(job_key(job_id, "heals"), self._expires_s)

    def record_group(self, job_id: str, group: int, rows: dict[int, list[Any]]) -> None:
        """Record how snapshots of *group* ended: index of the snapshot -> row."""
        self._redis.hset(job_key(job_id, "groups"), str(group), json.dumps(rows, separators=(",", ":")))
        self._redis.expire(job_key(job_id, "groups"), self._expires_s)

    def groups(self, job_id: str) -> dict[int, dict[int, list[Any]]]:
        """Return the snapshots that have ended: group -> index of the snapshot -> row."""
        found = self._redis.hgetall(job_key(job_id, "groups"))
        return {
            int(group): {int(index): row for index, row in json.loads(rows).items()}
            for group, rows in found.items()
        }

    def remove_working_keys(self, job_id: str) -> None:
        """Remove the keys that only an unfinished job needs."""
        series = [done_key(job_id, f"heal-{name}") for name in self._heal_names(job_id)]
        self._redis.delete(*job_keys(job_id, *WORKING, "driver"), *series)

    def _heal_names(self, job_id: str) -> list[str]:
        heals: dict[str, str] = self._redis.hgetall(job_key(job_id, "heals"))  # type: ignore[assignment]
        return [
            f"{group}-{turn}"
            for group, record in heals.items()
            for turn in range(1, json.loads(record)[0] + 1)
        ]
