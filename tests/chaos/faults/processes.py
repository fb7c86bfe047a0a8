"""Processes of the fleet are killed, stopped for a while, and told to end. Whatever has ended is started again."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress

from tests.chaos.world import Role, World
from tests.integration.processes import children_of

from .registry import NotPossible, fault

# How long a machine is paused. A lease lasts 30 s: most of the paused processes wake up without theirs.
PAUSED_S = (20.0, 90.0)


def _role(world: World, chance: random.Random, kind: str) -> Role:
    return chance.choice([role for role in world.roles if role.kind == kind])


def _main(role: Role) -> int:
    if role.running is None or role.running.process.poll() is not None:
        raise NotPossible(f"{role.name} is not running")
    return role.running.process.pid


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _with_children(world: World, chance: random.Random) -> Role:
    """Return a worker that has child processes. The first one always has."""
    return chance.choice([role for role in world.roles if role.kind == "worker" and not role.threads])


def _child(role: Role, chance: random.Random) -> int:
    children = children_of(_main(role))
    if not children:
        raise NotPossible(f"{role.name} has no pool child")
    return chance.choice(children)


@fault("pool child killed")
def child_killed(world: World, chance: random.Random) -> Iterator[str]:
    role = _with_children(world, chance)
    _signal([_child(role, chance)], signal.SIGKILL)
    yield role.name


@fault("orchestrator's pool child killed")
def orchestrator_child_killed(world: World, chance: random.Random) -> Iterator[str]:
    role = _role(world, chance, "orchestrator")
    _signal([_child(role, chance)], signal.SIGKILL)
    yield role.name


@fault("worker killed", slow=True)
def worker_killed(world: World, chance: random.Random) -> Iterator[str]:
    """Kill the main process alone: its pool must end by itself."""
    role = _role(world, chance, "worker")
    _signal([_main(role)], signal.SIGKILL)
    yield role.name


@fault("all workers killed", slow=True)
def all_workers_killed(world: World, chance: random.Random) -> Iterator[str]:
    running = [role for role in world.roles if role.kind == "worker" and role.running]
    _signal([process for role in running for process in role.family()], signal.SIGKILL)
    yield f"{len(running)} workers"


@fault("orchestrator killed", slow=True)
def orchestrator_killed(world: World, chance: random.Random) -> Iterator[str]:
    role = _role(world, chance, "orchestrator")
    _signal([_main(role)], signal.SIGKILL)
    yield role.name


@fault("host killed", slow=True)
def host_killed(world: World, chance: random.Random) -> Iterator[str]:
    """Kill all processes of one host at once, as a power cut does."""
    host = chance.choice(sorted({role.host for role in world.roles}))
    on_it = [role for role in world.roles if role.host == host]
    _signal([process for role in on_it for process in role.family()], signal.SIGKILL)
    yield " ".join(role.name for role in on_it)


def _stopped(processes: list[int], what: str) -> Iterator[str]:
    if not processes:
        raise NotPossible(f"{what} is not running")
    _signal(processes, signal.SIGSTOP)
    try:
        yield what
    finally:
        _signal(processes, signal.SIGCONT)


@fault("worker stopped and continued", PAUSED_S, slow=True)
def worker_stopped(world: World, chance: random.Random) -> Iterator[str]:
    role = _role(world, chance, "worker")
    yield from _stopped(role.family(), role.name)


@fault("orchestrator stopped and continued", PAUSED_S, slow=True)
def orchestrator_stopped(world: World, chance: random.Random) -> Iterator[str]:
    role = _role(world, chance, "orchestrator")
    yield from _stopped(role.family(), role.name)


@fault("host stopped and continued", PAUSED_S, slow=True)
def host_stopped(world: World, chance: random.Random) -> Iterator[str]:
    host = chance.choice(sorted({role.host for role in world.roles}))
    on_it = [role for role in world.roles if role.host == host]
    yield from _stopped(
        [process for role in on_it for process in role.family()], " ".join(role.name for role in on_it)
    )


@fault("pool child stopped and continued", PAUSED_S, slow=True)
def child_stopped(world: World, chance: random.Random) -> Iterator[str]:
    role = _with_children(world, chance)
    yield from _stopped([_child(role, chance)], role.name)


@fault("SIGTERM to a worker")
def worker_terminated(world: World, chance: random.Random) -> Iterator[str]:
    role = _role(world, chance, "worker")
    _signal([_main(role)], signal.SIGTERM)
    yield role.name


@fault("SIGTERM to an orchestrator")
def orchestrator_terminated(world: World, chance: random.Random) -> Iterator[str]:
    role = _role(world, chance, "orchestrator")
    _signal([_main(role)], signal.SIGTERM)
    yield role.name


@fault("SIGTERM, then SIGKILL", (0.3, 2.0), slow=True)
def killed_while_it_ends(world: World, chance: random.Random) -> Iterator[str]:
    """Do what Docker and systemd do with a process that takes too long to end."""
    role = chance.choice(world.roles)
    _signal([_main(role)], signal.SIGTERM)
    yield role.name
    _signal(role.family(), signal.SIGKILL)
