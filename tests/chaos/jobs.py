"""The jobs of a round, one maker of requests for each action."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from snapferry.orchestrator.jobs import one_store, store_pair
from snapferry.workers.messages import Action, JobSpec, Limits, Prune, TreeOptions

from .schedule import PlannedJob
from .world import World

# A job that sets its patience also waits for a store that has not answered it yet.
_PATIENT: Final[dict[str, Any]] = {"patience": 900.0, "waits_at_start": True}

Maker = Callable[[World, random.Random, dict[str, Any]], JobSpec]


def _ids(world: World, chance: random.Random) -> list[str]:
    return chance.sample(world.snapshots, chance.randint(1, len(world.snapshots)))


def _copy(world: World, chance: random.Random, fields: dict[str, Any]) -> JobSpec:
    pair = store_pair(chance.choice(world.source_urls), chance.choice(world.destination_urls))
    return JobSpec.of(*pair, _ids(world, chance), checksum=chance.random() < 0.3, **fields)


def _push(world: World, chance: random.Random, fields: dict[str, Any]) -> JobSpec:
    source, destination = store_pair(f"tree://{world.tree}", chance.choice(world.destination_urls))
    tree = TreeOptions()
    return JobSpec(
        source=source, destination=destination, everything=True, action=Action.PUSH, tree=tree, **fields
    )


def _verify(world: World, chance: random.Random, fields: dict[str, Any]) -> JobSpec:
    store = one_store(chance.choice([*world.source_urls, *world.destination_urls]))
    return JobSpec.of(store, store, None, action=Action.VERIFY, allow_empty_source=True, **fields)


def _heal(world: World, chance: random.Random, fields: dict[str, Any]) -> JobSpec:
    first, second = chance.sample(world.source_urls, 2)
    to = chance.choice(world.destination_urls)
    more = (store_pair(second, to)[0],)
    return JobSpec.of(
        *store_pair(first, to), _ids(world, chance), action=Action.HEAL, more_sources=more, **fields
    )


def _pull(world: World, chance: random.Random, fields: dict[str, Any]) -> JobSpec:
    target = world.pulled / f"{chance.getrandbits(32):08x}"
    pair = store_pair(chance.choice(world.source_urls), f"tree://{target}")
    tree = TreeOptions(delete=chance.random() < 0.5)
    return JobSpec.of(*pair, [chance.choice(world.snapshots)], action=Action.PULL, tree=tree, **fields)


def _mirror(world: World, chance: random.Random, fields: dict[str, Any]) -> JobSpec:
    pair = store_pair(chance.choice(world.source_urls), chance.choice(world.mirror_urls))
    return JobSpec.of(*pair, None, prune=Prune(max_delete=100), **fields)


MAKERS: Final[dict[str, Maker]] = {
    "copy": _copy,
    "push": _push,
    "verify": _verify,
    "heal": _heal,
    "pull": _pull,
    "mirror": _mirror,
}


def request_of(world: World, job: PlannedJob) -> JobSpec:
    """Return the request for a planned job."""
    fields: dict[str, Any] = {"limits": Limits(rate=job.rate), **_PATIENT}
    return MAKERS[job.action](world, random.Random(job.seed), fields)


def mending(world: World) -> list[JobSpec]:
    """Return the jobs that make each destination whole again, whatever has happened to it."""
    first, second = world.source_urls
    heals = [
        JobSpec.of(
            *store_pair(first, to),
            world.snapshots,
            action=Action.HEAL,
            more_sources=(store_pair(second, to)[0],),
            **_PATIENT,
        )
        for to in world.destination_urls
    ]
    mirrors = [
        JobSpec.of(*store_pair(first, to), None, prune=Prune(), checksum=True, **_PATIENT)
        for to in world.mirror_urls
    ]
    return [*heals, *mirrors]


def pulled_again(world: World, lost: Sequence[JobSpec]) -> list[JobSpec]:
    """Return jobs that pull again what was pulled by jobs that Redis has *lost*."""
    return [
        JobSpec.of(
            *store_pair(world.source_urls[0], spec.destination.url),
            spec.snapshot_ids,
            action=Action.PULL,
            tree=spec.tree,
            **_PATIENT,
        )
        for spec in lost
    ]
