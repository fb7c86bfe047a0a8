"""Limits of a job or a store in words."""

from __future__ import annotations

from snapferry.stores.text.format import counted, size
from snapferry.workers.limits import StoreLimits
from snapferry.workers.messages import Limits


def limit_text(limits: Limits) -> str:
    """Return the limits of a job or a store, "" if it has none."""
    default = " (default)" if isinstance(limits, StoreLimits) and limits.by_default else ""
    parts = (
        f"{size(limits.rate)}/s" if limits.rate else "",
        f"{counted(limits.requests, 'request')}/s{default}" if limits.requests else "",
        f"{counted(limits.jobs, 'object')} in flight" if limits.jobs else "",
    )
    return ", ".join(filter(None, parts))
