"""Which part of a store the next run of a scrub reads."""

from __future__ import annotations

import logging
from typing import Final

from snapferry.workers.ledger import NewCycle, ScrubLedger
from snapferry.workers.limits import store_id
from snapferry.workers.messages import JobSpec, Scope, ScrubMessage, ScrubPart

log = logging.getLogger(__name__)

NEW_CYCLE_TEXT: Final = {
    NewCycle.NO_RECORD: "Redis has no record of earlier runs",
    NewCycle.OTHER_STORE: "its store has changed",
    NewCycle.OTHER_SHARE: "its share has changed",
}


def begin_cycle(scrubs: ScrubLedger, message: ScrubMessage) -> None:
    """
    Begin a new cycle of a scrub if Redis has lost its state, or if its store or its share has changed, and log that.

    May be called again.
    """
    why = scrubs.begin_cycle(store_id(message.store.url), _part(message, 0))
    if why is not None:
        log.warning("scrub %s begins a new cycle: %s", message.name, NEW_CYCLE_TEXT[why])


def next_job(scrubs: ScrubLedger, message: ScrubMessage, patience: float) -> JobSpec:
    """
    Return the request for the next job of a scrub: its share of the store, or the rest of it.

    *patience* in seconds is for a scrub that sets none. May be called again: only the end of a job moves the position.
    """
    begin_cycle(scrubs, message)
    state = scrubs.state(message.name)
    part = _part(message, 0 if state is None else state.share)
    # A state that cannot be right is read again from the first share.
    first = part.first if state is None or not part.first <= state.at <= part.last else state.at
    return message.job_spec(part, Scope(first=first, last=part.last), patience=patience)


def _part(message: ScrubMessage, share: int) -> ScrubPart:
    return ScrubPart(name=message.name, shares=message.shares, share=share)
