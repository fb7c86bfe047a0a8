"""When a job whose stores no worker can reach is given up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from .store_problems import Kind, StoreProblem

RETURN_S: Final = 60.0
"""
A job is not given up within this time, although every live worker was refused, if that may change: if gone workers may
come back, or if a worker had reached the store before. Its clock is then set right, or its credentials are renewed.
"""

LATELY_S: Final = 30.0
"""A job whose patience is exhausted is given up only if a store was found away within this time."""

NEW_S: Final = 5.0
"""The longest time between the first parked batch of a job and the moment at which the job begins to wait."""


def give_up_reason(
    workers: Sequence[str],
    problems: Mapping[str, Sequence[StoreProblem]],
    since: float,
    waited_s: float,
    patience_s: float,
    others: Collection[str] = (),
    *,
    reached: bool = False,
) -> str:
    """
    Return why a job whose stores no worker reaches must be given up, "" if it must not.

    *problems* has, for each live worker, its problems with either store. A worker that was refused cannot copy the job.
    A worker for which a store is away can, once the store is back. Problems found before the job began to wait, at
    *since*, are ignored: they may belong to another job and be over. *others* are workers that are gone and were not
    refused: they have `RETURN_S` seconds to come back. *reached*: one of the workers was refused by a store that it had
    reached before, which may change as soon. The patience counts as exhausted only if a store was found
    away just now, because Redis may have been away before.
    """
    now = since + waited_s

    def is_new(problem: StoreProblem) -> bool:
        return problem.at >= since - NEW_S

    hopeless = all(
        any(problem.kind == Kind.REFUSED and is_new(problem) for problem in problems[worker])
        for worker in workers
    )
    hopeless = hopeless and (not (others or reached) or waited_s >= RETURN_S)
    exhausted = waited_s >= patience_s and any(
        is_new(problem) and problem.at >= now - LATELY_S for found in problems.values() for problem in found
    )
    if not hopeless and not exhausted:
        return ""
    reasons: dict[str, list[str]] = {}
    for worker in workers:
        for problem in problems[worker]:
            reason = f"{problem.error} at {problem.store}: {problem.detail}"
            reasons.setdefault(reason, []).append(worker)
    details = "; ".join(f"{reason} ({', '.join(found)})" for reason, found in reasons.items())
    cause = "no live worker can reach both stores" if hopeless else f"waited for {waited_s:.0f} s"
    return f"{cause}: {details}"[:1000]
