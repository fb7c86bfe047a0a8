"""Times, durations and URLs as text."""

from __future__ import annotations

from datetime import UTC, datetime

from snapferry.workers.ledger import JobStatus


def moment(seconds: float) -> str | None:
    """Return a time in seconds since the epoch as ISO 8601 in UTC, None for 0: not yet."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else None


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as ``5 min``."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def span(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``1 min 50 s``, where the largest alone is too coarse."""
    first = duration(seconds)
    for unit, length, smaller in ((" d", 86400, 3600), (" h", 3600, 60), (" min", 60, 1)):
        if first.endswith(unit):
            rest = int(seconds % length // smaller)
            return f"{first} {duration(rest * smaller)}" if rest else first
    return first


def names_text(status: JobStatus) -> str:
    """Return what a job did with the names of snapshots, "" for nothing."""
    carried, kept, removed = status.names_carried, status.names_kept, status.names_removed
    given = "given" if status.action.makes_snapshot else "carried along"
    counts = (
        f"{carried:,} {given}" if carried else "",
        f"{kept:,} kept as others gave them" if kept else "",
        f"{removed:,} removed" if removed else "",
    )
    return ", ".join(filter(None, counts))


def without_options(url: str) -> str:
    """Return the *url* of a store without its parameters."""
    return url.split("?", 1)[0]
