"""Watches a round from a thread of its own: progress, what is published, and when jobs move."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, Self

from redis.exceptions import RedisError

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import JobStatus, UnknownJob

from .oracle.progress import Progress
from .oracle.published import unpublished
from .recovery import Moves
from .world import World

EVERY_S: Final = 0.4

# Destinations are read once in so many samples.
_PUBLISHED_EACH: Final = 5


@dataclass
class Watch:
    """*moves* has, for each job, when it moved. Times are those of `time.monotonic`."""

    world: World
    jobs: Jobs
    moves: dict[str, Moves] = field(default_factory=dict)
    samples: int = 0

    def __post_init__(self) -> None:
        self._progress = Progress()
        self._server = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            for job in dict.fromkeys([*self.world.submitted]):
                try:
                    self._look(job)
                except (BrokerUnavailable, RedisError, UnknownJob):
                    continue
            self.samples += 1
            if self.samples % _PUBLISHED_EACH == 0:
                self._published()

    def _published(self) -> None:
        world = self.world
        for root in [*world.destinations, *world.mirrors]:
            for found in unpublished(root, world.damaged.get(root, set())):
                if root in world.damaged:
                    world.violate("manifest last, and verified", found)

    def _look(self, job: str) -> None:
        # The epoch is read before the status: one that changes meanwhile excuses nothing.
        server = self._note_server()
        epoch = self.world.epoch
        known = self.moves.setdefault(job, Moves())
        if known.ended_at is not None and epoch == known.epoch:
            return
        status: JobStatus = self.jobs.status(job)
        if self._note_server() != server or epoch != self.world.epoch:
            return
        self.world.false_progress += self._progress.false(status, epoch)
        known.saw(status, time.monotonic(), epoch)

    def _note_server(self) -> str:
        """
        Return which server is the primary, "" where there is one alone. Another may lack what this one acknowledged.

        Sentinels may change the primary once more when a fault is over, if two of them disagree.
        """
        if not self.world.redis.forgets:
            return ""
        found: Any = self.jobs._ledger.client.info("server")
        server = str(found["run_id"])
        if server != self._server:
            self._server = server
            self.world.epoch += 1
        return server

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
