"""A process that does an action, from its begin or after the death of another one, and dies where it is told to."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import redis
from celery import Celery

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.schedules.watcher import Watcher
from snapferry.stores.access import TRUSTED
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.ledger.keys import ENDED
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings

from . import points
from .roles import MOST_ROUNDS, Roles, pass_time
from .world import World

NEVER: Final = 1_000_000


@dataclass
class Process:
    """All roles in this process. *again*: another process has begun, and died."""

    world: World
    fuse: points.Fuse
    again: bool
    app: Celery
    client: redis.Redis
    roles: Roles
    jobs: Jobs
    watcher: Watcher
    after: Callable[[], object] = lambda: None
    """What an orchestrator does further in each round."""

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.client, expires_s=3600)

    def submit(self, spec: JobSpec) -> None:
        """Submit a job, unless that was done: nobody submits a job again that is known."""
        try:
            self.ledger.status(spec.job_id)
        except UnknownJob:
            self.jobs.submit(spec)

    def complete(self) -> None:
        """Run until no job is open, no message waits, and every job that ended is settled."""
        for _ in range(MOST_ROUNDS):
            self.roles.drain()
            self.watcher.round(self.ledger)
            self.after()
            if not (self.ledger.open_jobs() or self.roles.waits or self.client.exists(ENDED)):
                return
            with self.fuse.off():
                pass_time(self.client)
            self.roles.drain_later()
            self.roles.reconcile()
        standings = [self.ledger.standing(job_id) for job_id in self.ledger.open_jobs()]
        raise AssertionError(f"the action does not end: {standings}")


@cache
def _made(settings: Settings) -> tuple[Celery, Jobs]:
    return make_fleet_app(settings, TRUSTED), Jobs(settings, check=False, access=TRUSTED)


def run(
    world: World, work: Callable[[Process], None], *, point: int = NEVER, only: str = "", again: bool = False
) -> bool:
    """
    Do *work* in a process of its own, killed before its *point*-th write; return whether it was killed.

    Only writes count whose labels contain *only*. The labels of a process that was not killed are in `World.labels`.

    Raises AssertionError if the work failed.
    """
    error = world.note.with_name("error")
    error.unlink(missing_ok=True)
    # Made once, and without a connection yet, because that takes longer than most of the work.
    _made(world.settings)
    child = os.fork()
    if child == 0:
        try:
            _work(world, work, points.Fuse(point, world.note, only), again)
        except BaseException:
            error.write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"status {status}: {error.read_text() if error.exists() else ''}"
    return killed


def _work(world: World, work: Callable[[Process], None], fuse: points.Fuse, again: bool) -> None:
    from snapferry.stores.backends.s3.client import clients

    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = open(os.devnull, "w")
    tempfile.tempdir = str(world.temporary)
    # Connections of the parent process are not for this one.
    clients._clients.clear()
    app, jobs = _made(world.settings)
    client = world.client()
    process = Process(world, fuse, again, app, client, Roles(app, client), jobs, Watcher(world.settings))
    points.install(fuse, world.folder, world.s3_ports)
    work(process)
    with fuse.off():
        world.labels.write_text("\n".join(fuse.burnt))
