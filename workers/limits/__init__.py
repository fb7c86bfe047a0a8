"""
Limits that the whole fleet keeps together, through Redis: bytes and requests a second, and objects in flight.

*exact*: what is granted by any moment is at most the limit times the time, plus a tenth of a second's worth and one
grant.
*nothing saved up*: a pause of any length entitles to that tenth of a second's worth and no more.
*work-conserving and fair*: jobs that share a store's limit get equal parts of it, and what one leaves the others take.
*waits, never runs free*: while Redis is away nothing is granted.
*nobody holds a share for ever*: what a dead worker was granted counts as used; its objects in flight are forgotten
after `limit_store.HELD_S`.

    limit_store   the limits and what was granted of them, in Redis
    scripts       its steps, in Lua
    token_bucket  one limit within one process: grants taken ahead, handed out in turn
    semaphore     objects in flight within one process
    throttle      all limits of a batch that runs, or of an orchestrator's step
"""

from .limit_store import Change, LimitBook, StoreLimits, store_place
from .throttle import Brakes

__all__ = ["Brakes", "Change", "LimitBook", "StoreLimits", "store_place"]
