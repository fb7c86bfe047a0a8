"""What a machine runs out of: disk, inodes, mounts, file descriptors, memory, names, and the right time."""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.world import DISK_BYTES, DISK_INODES, Role, World

from .registry import NeverPossible, NotPossible, fault


def _remounted(world: World, option: Callable[[os.statvfs_result], str], undone: str) -> Iterator[str]:
    if world.disk is None:
        raise NeverPossible("this process may not mount a disk")
    chosen = option(os.statvfs(world.disk))
    subprocess.run(["mount", "-o", f"remount,{chosen}", world.disk], check=True)
    try:
        yield chosen
    finally:
        subprocess.run(["mount", "-o", f"remount,{undone}", world.disk], check=True)


@fault("disk full", (2.0, 12.0), fails=True)
def disk_full(world: World, chance: random.Random) -> Iterator[str]:
    """Leave no space at the destination in a directory."""
    yield from _remounted(
        world,
        lambda found: f"size={(found.f_blocks - found.f_bfree) * found.f_frsize or 4096}",
        f"size={DISK_BYTES}",
    )


@fault("inodes gone", (2.0, 12.0), fails=True)
def inodes_gone(world: World, chance: random.Random) -> Iterator[str]:
    """Let the destination in a directory make no more files."""
    yield from _remounted(
        world, lambda found: f"nr_inodes={found.f_files - found.f_ffree}", f"nr_inodes={DISK_INODES}"
    )


@fault("mount away", (2.0, 15.0), fails=True)
def mount_away(world: World, chance: random.Random) -> Iterator[str]:
    """Unmount the destination in a directory, as a network mount goes away."""
    if world.disk is None:
        raise NeverPossible("this process may not mount a disk")
    world.unmount()
    try:
        yield ""
    finally:
        world.mount()


def _limited(role: Role, which: int, most: Callable[[int], int]) -> Iterator[str]:
    """Give each process of *role* a soft limit, and its old one again."""
    before = {}
    for process in role.family():
        with suppress(OSError):
            before[process] = resource.prlimit(process, which)
            soft = most(process)
            resource.prlimit(process, which, (soft, before[process][1]))
    if not before:
        raise NotPossible(f"{role.name} is not running")
    try:
        yield role.name
    finally:
        for process, limits in before.items():
            with suppress(OSError):
                resource.prlimit(process, which, limits)


@fault("descriptors gone", (2.0, 10.0), fails=True)
def descriptors_gone(world: World, chance: random.Random) -> Iterator[str]:
    """Let the processes of a role open no more files than they have open, more or less."""
    more = chance.choice([0, 2, 8])
    role = chance.choice(world.roles)
    yield from _limited(
        role, resource.RLIMIT_NOFILE, lambda process: len(os.listdir(f"/proc/{process}/fd")) + more
    )


@fault("memory limited", (2.0, 10.0), fails=True)
def memory_limited(world: World, chance: random.Random) -> Iterator[str]:
    """Let the processes of a role take hardly more memory than they have."""
    more = chance.choice([0, 1, 4]) * 1024**2

    def most(process: int) -> int:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE") + more

    yield from _limited(chance.choice(world.roles), resource.RLIMIT_AS, most)


@fault("no names", (2.0, 15.0))
def no_names(world: World, chance: random.Random) -> Iterator[str]:
    """Let no name be resolved."""
    flag = world.folder / "no-names"
    flag.touch()
    try:
        yield ""
    finally:
        flag.unlink(missing_ok=True)


def _shifted(world: World, roles: Sequence[Role], seconds: int) -> Iterator[str]:
    """Shift the clocks of *roles*."""
    flags = [world.folder / f"clock-{role.name}" for role in roles]
    for flag in flags:
        flag.write_text(str(seconds))
    try:
        yield f"{' '.join(role.name for role in roles)} by {seconds} s"
    finally:
        for flag in flags:
            flag.unlink(missing_ok=True)


@fault("clock skewed", (5.0, 40.0))
def clock_skewed(world: World, chance: random.Random) -> Iterator[str]:
    """Put the clocks of one role ten minutes before or after those of the others."""
    yield from _shifted(world, [chance.choice(world.roles)], chance.choice([-600, 600]))


@fault("all clocks jump", (2.0, 15.0))
def clocks_jump(world: World, chance: random.Random) -> Iterator[str]:
    """Let the clocks of all processes jump, and jump back."""
    yield from _shifted(world, world.roles, chance.choice([-600, -40, 40, 600]))


@fault("clock of a worker hours off", (2.0, 15.0))
def clock_hours_off(world: World, chance: random.Random) -> Iterator[str]:
    """
    Put the clocks of one worker so far off that S3 refuses its requests: others take its batches.

    If there is no other at this moment, the job waits for a minute.
    """
    workers = [role for role in world.roles if role.kind == "worker"]
    yield from _shifted(world, [chance.choice(workers)], chance.choice([-7200, 7200]))


@fault("clock of an orchestrator hours off", (2.0, 15.0), fails=True)
def orchestrators_clock_hours_off(world: World, chance: random.Random) -> Iterator[str]:
    """Do the same to an orchestrator: a job that begins meanwhile fails, as with wrong credentials."""
    orchestrators = [role for role in world.roles if role.kind == "orchestrator"]
    yield from _shifted(world, [chance.choice(orchestrators)], chance.choice([-7200, 7200]))
