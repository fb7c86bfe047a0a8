"""Groups of snapshots: how they ended, and missing objects that are copied again ("healing")."""

from __future__ import annotations

import json
from typing import Any, Final

from snapferry.workers.job_state import State
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import WORKING, done_key, job_key, job_keys
from snapferry.workers.redis_json import parse_json

ROWS_IN_A_VALUE: Final = 1000
"""The most rows in one value in Redis. A group may have all snapshots of its job."""

# The field of a group's first rows is its number. Further rows of it are in fields that are so much higher each.
_STRIDE: Final = 2**32

# Values that are sent or asked for together.
_VALUES_AT_ONCE: Final = 100


class GroupLedger(LedgerBase):
    """The groups of a job. Every method may be repeated with the same arguments."""

    def note_healing(self, job_id: str, group: int, *, turn: int, batches: int) -> None:
        """Note that *batches* batches copy missing objects of *group* again, for the *turn*-th time."""
        self._redis.hset(job_key(job_id, "heals"), str(group), json.dumps([turn, batches]))
        self._keep(job_id, "heals")

    def record_group(self, job_id: str, group: int, rows: dict[int, list[Any]]) -> None:
        """
        Record how snapshots of *group* ended: index of the snapshot -> row. All rows of the group that are recorded.

        After an error some rows may be recorded.
        """
        key, ordered = job_key(job_id, "groups"), sorted(rows.items())
        chunks = [ordered[at : at + ROWS_IN_A_VALUE] for at in range(0, len(ordered), ROWS_IN_A_VALUE)]
        for first in range(0, len(chunks), _VALUES_AT_ONCE):
            values: Any = {
                str(group + number * _STRIDE): json.dumps(dict(chunk), separators=(",", ":"))
                for number, chunk in enumerate(chunks[first : first + _VALUES_AT_ONCE], first)
            }
            self._redis.hset(key, mapping=values)
        self._keep(job_id, "groups")

    def _keep(self, job_id: str, part: str, *, expires: bool = True) -> None:
        """
        Let a *part* of the job expire with it, and remove it if the job has ended.

        Without *expires*, the part has an end of its own.

        An orchestrator that was held up may go on with a job that another one has ended. The end removes such parts
        after the state is final, so one of the two finds what is left.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            if expires:
                pipe.expire(job_key(job_id, part), self._expires_s)
            pipe.hget(job_key(job_id), "state")
            state = pipe.execute()[-1]
        if not state or State(str(state)).final:
            self._redis.delete(job_key(job_id, part))

    def rest(self, job_id: str, seconds: float) -> None:
        """Let no group of the job be published for *seconds*, unless all of its batches are accounted for."""
        self._redis.set(job_key(job_id, "rest"), 1, px=max(1, round(1000 * seconds)))
        self._keep(job_id, "rest", expires=False)

    def rests(self, job_id: str) -> bool:
        """Return whether `rest` was called, and its seconds are not over."""
        return bool(self._redis.exists(job_key(job_id, "rest")))

    def groups(self, job_id: str) -> dict[int, dict[int, list[Any]]]:
        """Return the snapshots that have ended: group -> index of the snapshot -> row."""
        found: dict[int, dict[int, list[Any]]] = {}
        for field, rows in self._redis.hscan_iter(job_key(job_id, "groups"), count=_VALUES_AT_ONCE):
            group = found.setdefault(int(field) % _STRIDE, {})
            group.update((int(index), row) for index, row in parse_json(rows).items())
        return found

    def remove_working_keys(self, job_id: str) -> None:
        """Remove the keys that only an unfinished job needs."""
        series = [done_key(job_id, f"heal-{name}") for name in self._heal_names(job_id)]
        self._redis.delete(*job_keys(job_id, *WORKING, "driver", "rest"), *series)

    def _heal_names(self, job_id: str) -> list[str]:
        heals: dict[str, str] = self._redis.hgetall(job_key(job_id, "heals"))  # type: ignore[assignment]
        return [
            f"{group}-{turn}"
            for group, record in heals.items()
            for turn in range(1, parse_json(record)[0] + 1)
        ]
