"""The jobs of a fleet, by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import click
from click.shell_completion import CompletionItem

from snapferry.workers.broker.connection import fail_fast_client
from snapferry.workers.job_state import DISMISSED, OPEN_STATES, State
from snapferry.workers.ledger import JobStatus, Ledger
from snapferry.workers.ledger.steps.listing import list_state
from snapferry.workers.messages import Action

from .settings import settings_of

MOST_JOBS: Final = 100
"""Jobs that are offered: the newest."""

# Jobs whose states are asked for, the newest first.
_MOST_ASKED: Final = 10_000

# Jobs that are looked at one by one, and how many of them at once.
_MOST_READ: Final = 1000
_PAGE: Final = 100

# Seconds in which Redis answers each request.
_ANSWER_S: Final = 1.0

_OPEN: Final = frozenset(map(str, OPEN_STATES))
_OVER: Final = frozenset({str(State.FAILED), str(State.CANCELLED)})
_DONE: Final = frozenset({str(State.DONE)})
_FAILED: Final = frozenset({str(State.FAILED)})

# The states in which a command has something to do, by its name. A command that is not here takes any job.
WANTED: Final[Mapping[str, frozenset[str]]] = {
    "cancel": _OPEN,
    "pause": _OPEN,
    "continue": _OPEN,
    "priority": _OPEN,
    "limit": _OPEN,
    "watch": _OPEN,
    "resume": _OVER | _DONE,
    "retry": _OVER,
    "dismiss": _FAILED,
}

_SUITS: Final[Mapping[str, Callable[[JobStatus], bool]]] = {
    "pause": lambda status: not status.paused,
    "continue": lambda status: status.paused,
    "resume": lambda status: status.resumable,
    "retry": lambda status: status.retryable,
}


def jobs(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Yield the newest jobs that the command can do something with, each with its state and stores."""
    settings = settings_of(ctx)
    if settings.broker_url is None:
        return
    command = ctx.command.name or ""
    wanted = frozenset({DISMISSED}) if ctx.params.get("undo") else WANTED.get(command)
    suits = _SUITS.get(command, lambda _: True)
    with fail_fast_client(settings.broker_url, _ANSWER_S) as client:
        ledger = Ledger(client, expires_s=settings.job_expires)
        job_ids = [job_id for job_id in ledger.job_ids() if job_id.startswith(incomplete)]
        if wanted is not None:
            job_ids = job_ids[:_MOST_ASKED]
            states = ledger.states(job_ids)
            fitting = [pair for pair in zip(job_ids, states, strict=True) if pair[1] in wanted]
            # Most jobs that are done have no rest, so that they would take the place of others.
            job_ids = [job_id for job_id, _ in sorted(fitting, key=lambda pair: pair[1] in _DONE)]
        found: list[JobStatus] = []
        read = 0
        while read < min(len(job_ids), _MOST_READ) and len(found) < MOST_JOBS:
            found += filter(suits, ledger.statuses(job_ids[read : read + _PAGE]))
            read += _PAGE
        further = {status.job_id[: len(incomplete) + 1] for status in found[:MOST_JOBS]}
        if (len(found) > MOST_JOBS or read < len(job_ids)) and len(further) == 1:
            # The shell would insert what the newest have in common, and older jobs may not have.
            return
        for status in found[:MOST_JOBS]:
            yield CompletionItem(status.job_id, help=_help(status))


def _help(status: JobStatus) -> str:
    state = "paused" if status.paused and not status.state.final else list_state(status)
    action = "" if status.action is Action.COPY else f" {status.action}"
    stores = [url.partition("?")[0] for url in (status.source, status.destination) if url]
    return f"{state}{action} {' to '.join(dict.fromkeys(stores))}"
