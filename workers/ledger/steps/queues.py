"""Tasks of jobs in queues of Celery."""

from __future__ import annotations

from snapferry.workers.job_state import State
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import job_key
from snapferry.workers.ledger.state import UnknownJob, state_of
from snapferry.workers.lua import RedisKey
from snapferry.workers.queues import Priority, copy_queue, lists, moves, parking_queue


class QueueLedger(LedgerBase):
    """The queues in which tasks of jobs wait. Every method may be repeated with the same arguments."""

    def prioritise(self, job_id: str, priority: Priority) -> tuple[State, int]:
        """
        Give the job's batches *priority*, also those that wait. Return the job's state and the number of moved tasks.

        No task is out of the queue at any moment. An orchestrator that queues batches at the same time may still
        use the old priority: call again to move those. A job that has ended stays as it is. Raises `UnknownJob`.
        """
        state, name = self._redis.hmget(job_key(job_id), ["state", "queue"])
        if state is None:
            raise UnknownJob(job_id)
        name = str(name or "")
        pairs = [*moves(copy_queue(name), priority), *moves(parking_queue(name, job_id), priority)]
        keys = [RedisKey(queue) for pair in pairs for queue in pair]
        found, moved = self._run(
            scripts.PRIORITISE, [job_key(job_id), *keys], [priority.value, _mark(job_id)]
        )
        return state_of(job_id, found), int(moved)

    def has_queued_task(self, queue: str, job_id: str) -> bool:
        """Return whether a task of the job is in a Celery *queue*. Reads every message in it."""
        return bool(self._run(scripts.HAS_TASK, [RedisKey(name) for name in lists(queue)], [_mark(job_id)]))

    def remove_queue(self, queue: str) -> None:
        """Remove a Celery *queue* with its messages and kombu's records of it."""
        self._redis.delete(*lists(queue), f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}")

    def is_queue_empty(self, queue: str) -> bool:
        """Return whether no task waits in a Celery *queue*."""
        return not self._redis.exists(*lists(queue))


def _mark(job_id: str) -> str:
    """Return a text that every message of the job's tasks contains, and no other message."""
    return f'"root_id": "{job_id}"'
