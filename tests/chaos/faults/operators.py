"""What operators do to jobs, at the wrong moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from snapferry.orchestrator.jobs import JobRefused, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import UnknownJob
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import Priority
from tests.chaos.world import World

from .registry import NotPossible, fault

# A paused job that Redis' absence keeps from being continued is continued within this time.
_CONTINUE_S = 120.0

# A job that lacks an object fails within this time, unless other faults keep it from that.
_FAILS_S = 20.0


def _asked(world: World, chance: random.Random, what: Callable[[str], object]) -> str:
    """Ask *what* of jobs in any order, until one does not refuse it; return the beginning of its id."""
    why = "there is no job"
    for job in chance.sample(world.submitted, len(world.submitted)):
        try:
            what(job)
        except (JobRefused, UnknownJob) as error:
            why = f"{type(error).__name__}: {error}"
        except BrokerUnavailable as error:
            raise NotPossible(str(error)) from None
        else:
            return job[:8]
    raise NotPossible(why)


@fault("job cancelled")
def cancelled(world: World, chance: random.Random) -> Iterator[str]:
    def cancel(job: str) -> None:
        world.cancelled.add(job)
        world.jobs.cancel(job)

    yield _asked(world, chance, cancel)


@fault("job paused and continued", (2.0, 20.0))
def paused(world: World, chance: random.Random) -> Iterator[str]:
    asked: list[str] = []

    def pause(job: str) -> None:
        # Also one whose request was not answered may be paused.
        asked.append(job)
        world.jobs.pause(job)

    try:
        yield _asked(world, chance, pause)
    finally:
        deadline = time.monotonic() + _CONTINUE_S
        while asked:
            try:
                world.jobs.unpause(asked[-1])
                asked.pop()
            except UnknownJob:
                asked.pop()
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


@fault("job resumed")
def resumed(world: World, chance: random.Random) -> Iterator[str]:
    def resume(job: str) -> None:
        if (new := world.jobs.resume(job)) is not None:
            world.submitted.append(new)

    yield _asked(world, chance, resume)


@fault("job retried", fails=True)
def retried(world: World, chance: random.Random) -> Iterator[str]:
    """Retry a job in which objects failed. There is none at most moments, so make one."""

    def retry(job: str) -> None:
        world.submitted.append(world.jobs.retry(job))

    try:
        found = _asked(world, chance, retry)
    except NotPossible:
        _fail_a_job(world, chance)
        found = _asked(world, chance, retry)
    yield found


def _fail_a_job(world: World, chance: random.Random) -> None:
    """Run a copy that lacks an object of its source, until it has failed."""
    snapshot = chance.choice(world.snapshots)
    address = digest(chance.choice(sorted(data for data in world.contents[snapshot].values() if data)))
    path = world.sources[0] / object_key(address)
    place = Path(world.destination_urls[0]).with_name(f"retried-{chance.getrandbits(32):08x}")
    spec = JobSpec.of(*store_pair(world.source_urls[0], str(place)), [snapshot])
    try:
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        if data is None or digest(data) != address:
            raise NotPossible("another fault has damaged the object")
        path.unlink()
    except OSError as error:
        raise NotPossible(f"another fault has damaged the object: {error}") from None
    try:
        # Redis may refuse it; then there is no such job.
        world.submitted.append(world.jobs.submit(spec))
        status = world.jobs.wait(spec.job_id, timeout_s=_FAILS_S)
    except (BrokerUnavailable, UnknownJob, TimeoutError) as error:
        raise NotPossible(f"{type(error).__name__}: {error}") from None
    finally:
        path.write_bytes(data)
    if not status.state.final:
        raise NotPossible("the job has not failed in time")


@fault("job's priority changed")
def prioritised(world: World, chance: random.Random) -> Iterator[str]:
    priority = chance.choice(list(Priority))
    yield _asked(world, chance, lambda job: world.jobs.prioritise(job, priority))


@fault("job limited", (2.0, 10.0))
def limited(world: World, chance: random.Random) -> Iterator[str]:
    jobs, rate = chance.randint(1, 9), chance.choice([None, 50_000, 10_000_000])
    yield _asked(world, chance, lambda job: world.jobs.limit(job, {"jobs": jobs, "rate": rate}))
