"""Kill an action before its writes, complete it, and compare what is there with what an undisturbed run left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from . import process
from .actions import Row
from .roles import lose, redeliver
from .world import World

# More points than any action has.
MOST_POINTS: Final = 2000


def undisturbed(world: World, row: Row) -> dict[str, Any]:
    """Do an action without a death; return what is there in the end."""
    world.renew()
    row.begin(world)
    process.run(world, row.work)
    row.check(world)
    assert list(world.leftovers()) == []
    world.undisturbed[row.name] = world.seen()
    return world.undisturbed[row.name]


def kill_at(world: World, row: Row, points: Iterable[int], *, only: str = "", redelivered: bool) -> list[str]:
    """
    Kill an action at each of *points*, up to the first that it does not reach; return what went wrong.

    Only points count whose labels contain *only*.

    With *redelivered*, the messages of the dead process are delivered again. Otherwise they are lost, and the
    reconciler completes the action.
    """
    expected = world.undisturbed.get(row.name) or undisturbed(world, row)
    found: list[str] = []
    for point in points:
        world.renew()
        row.begin(world)
        killed = process.run(world, row.work, point=point, only=only)
        if not killed:
            break
        problem = _complete(world, row, expected, redelivered=redelivered)
        if problem:
            found.append(f"{row.name}, point {point}, before: {world.note.read_text()}: {problem}")
    return found


def _complete(world: World, row: Row, expected: dict[str, Any], *, redelivered: bool) -> str:
    """Complete an action whose process died; return what is wrong, "" if nothing is."""
    if not row.damaged and (broken := list(world.violations())):
        return f"after the death: {broken}"
    with world.client() as client:
        (redeliver if redelivered else lose)(client)
    try:
        process.run(world, row.work, again=True)
        row.check(world)
    except Exception as error:
        return f"not completed: {error}"
    if broken := [*world.violations(), *world.leftovers(lost=not redelivered)]:
        return f"in the end: {broken}"
    seen = world.seen()
    return "; ".join(
        f"{name} is {str(seen[name])[:1000]}, without a death {str(wanted)[:1000]}"
        for name, wanted in expected.items()
        if seen[name] != wanted
    )
