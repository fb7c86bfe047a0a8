"""
Limits that the whole fleet keeps together, through Redis: bytes and requests per second, and objects in flight.

*exact*: the amount granted by any moment is at most the limit times the time, plus 0.1 seconds' worth and one grant.
*no saved capacity*: after a pause of any length, at most those 0.1 seconds' worth are granted at once.
*work-conserving and fair*: jobs that share a store's limit get equal parts of it. What one job leaves unused, the
others get.
*never unlimited by accident*: nothing is granted while Redis is away.
*no share is lost for ever*: what a dead worker was granted counts as used. Its objects in flight are forgotten after
`limit_store.HELD_S`.

    limit_store   the limits and their grants, in Redis
    lua/          its scripts
    scripts       the scripts by their names in Python
    token_bucket  one limit within one process: tokens fetched ahead, and taken in turn
    semaphore     objects in flight within one process
    throttle      all limits of a running batch, or of a step of an orchestrator
"""

from .limit_store import Change, LimitStore, StoreLimits, store_id
from .semaphore import Semaphore
from .throttle import Throttle

__all__ = ["Change", "LimitStore", "Semaphore", "StoreLimits", "Throttle", "store_id"]
