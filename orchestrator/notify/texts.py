"""Events as plain text: what happened, why, and the next command. Nothing in it can be taken for markup."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.text.format import duration, without_options
from snapferry.orchestrator.reporting.text.status import kept_text, reason_text
from snapferry.orchestrator.schedules.lateness import Standing, cause_text, lateness
from snapferry.stores.text.format import counted
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.settings.notify_table import EventKind, Notify

from .decide import Event
from .plain import plain

# Events of one kind that are told in full; the others are counted.
LISTED: Final = 5

# Kinds of messages, as Apprise names them.
_KINDS: Final = {EventKind.FAILED: "failure", EventKind.LATE: "warning", EventKind.RECOVERED: "success"}

_LONGEST_COMMAND: Final = 500


@dataclass(frozen=True)
class Text:
    """A message: its *id* is the same for the same events. *kind* is failure, warning or success."""

    id: str
    title: str
    body: str
    kind: str


def compose(
    events: Sequence[Event],
    schedules: Mapping[str, Standing],
    table: Notify,
    now: float,
    again: Sequence[str] | None = None,
) -> Text:
    """
    Return one message about all *events*. *schedules* has the mirrors and scrubs that are late.

    *again* is the command that runs the mirror or scrub again, on a machine without a fleet; None on a fleet.
    """
    by_kind = {kind: [event for event in events if event.kind is kind] for kind in EventKind}
    parts = []
    for kind, found in by_kind.items():
        # Those of mirrors and scrubs come first: nobody else watches them.
        found.sort(key=lambda event: (event.subject.startswith("job:"), event.since))
        parts += [_event_text(event, schedules, now, again) for event in found[:LISTED]]
        if len(found) > LISTED:
            parts.append(_rest_text(kind, found[LISTED:]))
    message_id = _id_of(events)
    parts.append(f"Message {message_id}. If it arrives twice, ignore the second one.")
    worst = next(_KINDS[kind] for kind, found in by_kind.items() if found)
    return Text(message_id, _title(by_kind, table), "\n\n".join(parts), worst)


def _id_of(events: Sequence[Event]) -> str:
    found = sorted((event.kind, event.subject, event.since, event.again) for event in events)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]


def _title(by_kind: Mapping[EventKind, Sequence[Event]], table: Notify) -> str:
    events = [event for found in by_kind.values() for event in found]
    name = table.fleet
    if len(events) == 1:
        (event,) = events
        end = {
            EventKind.FAILED: "still fails" if event.again else "failed",
            EventKind.LATE: "is still late" if event.again else "is late",
            EventKind.RECOVERED: "has recovered",
        }[event.kind]
        return f"{name}: {_name(event)} {end}"
    words = {EventKind.FAILED: "failed", EventKind.LATE: "late", EventKind.RECOVERED: "recovered"}
    return f"{name}: " + ", ".join(
        f"{_what(found)} {words[kind]}" for kind, found in by_kind.items() if found
    )


def _what(events: Sequence[Event]) -> str:
    """Return the subjects of *events* by their kinds, as ``2 jobs and 1 mirror``."""
    counts = Counter(event.subject.partition(":")[0] for event in events)
    return " and ".join(counted(counts[kind], kind) for kind in ("mirror", "scrub", "job") if counts[kind])


def _name(event: Event) -> str:
    kind, _, name = event.subject.partition(":")
    return f"{kind} {short(name) if kind == 'job' else name}"


def _event_text(
    event: Event, schedules: Mapping[str, Standing], now: float, again: Sequence[str] | None
) -> str:
    if event.kind is EventKind.FAILED:
        return _failure_text(event, again)
    if event.kind is EventKind.LATE:
        return _late_text(event, schedules.get(event.subject, Standing()), now, again)
    lines = [f"{_capital(_name(event))} has recovered."]
    if event.job is not None:
        lines.append(f"Job {event.job.job_id} was done at {_at(event.job.ended_at)}.")
    lines.append(f"The problem began at {_at(event.since)}.")
    return "\n".join(lines)


def _failure_text(event: Event, again: Sequence[str] | None) -> str:
    status = event.job
    name = _capital(_name(event))
    if status is None:
        return f"{name} has failed since {_at(event.since)}; the record of its job has expired."
    verb = f"has failed since {_at(event.since)}" if event.again else f"failed at {_at(status.ended_at)}"
    lines = [f"{name} {verb}.", f"Job: {status.job_id}, {_route(status)}"]
    if status.error:
        lines.append(f"Why: {plain(reason_text(status))}")
    if kept := kept_text(status):
        lines.append(plain(kept))
    return "\n".join([*lines, *_next_lines(advise(status, again=again))])


def _late_text(event: Event, standing: Standing, now: float, again: Sequence[str] | None) -> str:
    freshness = event.freshness
    assert freshness is not None  # a mirror or scrub is late
    success = (
        f"Last success: {_at(freshness.success_at)}, {duration(now - freshness.success_at)} ago."
        if freshness.success_at
        else f"It has not succeeded yet. It has been expected since {_at(freshness.since)}."
    )
    lines = [f"{_capital(_name(event))} has been late since {_at(event.since)}.", success]
    if again is not None:
        # Cron or systemd starts the runs, and this is told at the end of one.
        job = standing.job
        if job is not None and job.error and job.state is State.FAILED:
            lines.append(f"Why: {plain(reason_text(job))}")
        run_again = Advice("Find out why the runs fail or do not start, then run it.", tuple(again))
        return "\n".join([*lines, *_next_lines(run_again)])
    found = lateness(freshness, standing)
    if found.job is None:
        lines.append(cause_text(found))
    else:
        lines.append(f"{cause_text(found).removesuffix('.')}: {found.job.job_id}, {_route(found.job)}")
        if found.job.error and found.job.state is State.FAILED:
            lines.append(f"Why: {plain(reason_text(found.job))}")
    return "\n".join([*lines, *_next_lines(found.advice)])


def _rest_text(kind: EventKind, events: Sequence[Event]) -> str:
    word = {EventKind.FAILED: "failed", EventKind.LATE: "late", EventKind.RECOVERED: "recovered"}[kind]
    lines = [f"And {_what(events)} more {word}."]
    if kind is EventKind.FAILED:
        causes = Counter(event.job.cause for event in events if event.job is not None and event.job.cause)
        if causes:
            most = ", ".join(f"{count:,} {plain(cause, 64)}" for cause, count in causes.most_common(5))
            lines.append(f"Causes: {most}.")
        lines += _next_lines(Advice("See all of them.", ("snapferry", "jobs")))
    return "\n".join(lines)


def _next_lines(advice: Advice) -> list[str]:
    if not advice:
        return []
    # A command that is not shown as it is must not be shown at all.
    sentence = advice.sentence if plain(advice.sentence) == advice.sentence else advice.brief
    lines = [f"Next: {plain(sentence)}"]
    shown = advice.argv and plain(advice.command, _LONGEST_COMMAND) == advice.command
    return [*lines, f"    {advice.command}"] if shown else lines


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _route(status: JobStatus) -> str:
    source, destination = plain(without_options(status.source)), plain(without_options(status.destination))
    return source if source == destination else f"from {source} to {destination}"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
