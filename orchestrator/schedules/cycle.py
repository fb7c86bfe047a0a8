"""Which part of a store the next run of a scrub reads."""

from __future__ import annotations

import logging
from typing import Final

from snapferry.workers.ledger import NewCycle, ScrubLedger, ScrubState
from snapferry.workers.limits import store_id
from snapferry.workers.messages import JobSpec, Scope, ScrubMessage, ScrubPart

log = logging.getLogger(__name__)

NEW_CYCLE_TEXT: Final = {
    NewCycle.NO_RECORD: "there is no record of earlier runs",
    NewCycle.OTHER_STORE: "its store has changed",
    NewCycle.OTHER_SHARE: "its share has changed",
}


def begin_cycle(scrubs: ScrubLedger, message: ScrubMessage) -> ScrubState:
    """
    Return the state of a scrub. Begin a new cycle, and log that, if Redis has lost the state, or if the store or the
    share of the scrub has changed.

    May be called again.
    """
    store, first = store_id(message.store.url), _part(message, 0)
    why = scrubs.begin_cycle(store, first)
    state = scrubs.state(message.name)
    if state is None or not _part(message, state.share).first <= state.at <= _part(message, state.share).last:
        # Somebody has changed the state.
        why = scrubs.begin_cycle(store, first, damaged=True)
        state = scrubs.state(message.name)
    if why is not None:
        log.warning("scrub %s begins a new cycle: %s", message.name, NEW_CYCLE_TEXT[why])
    assert state is not None  # it was just written
    return state


def next_job(scrubs: ScrubLedger, message: ScrubMessage, patience: float) -> JobSpec:
    """
    Return the request for the next job of a scrub: its share of the store, or the rest of it.

    *patience* in seconds is for a scrub that sets none. May be called again: only the end of a job moves the position.
    """
    state = begin_cycle(scrubs, message)
    part = _part(message, state.share)
    return message.job_spec(part, Scope(first=state.at, last=part.last), patience=patience)


def _part(message: ScrubMessage, share: int) -> ScrubPart:
    return ScrubPart(name=message.name, shares=message.shares, share=share)
