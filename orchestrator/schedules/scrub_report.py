"""Scrubs with their last and next runs: rows of a table, and JSON documents for programs (docs/json.md)."""

from __future__ import annotations

import time
from typing import Any, Final

from snapferry.orchestrator.reporting.text.format import duration, moment
from snapferry.stores.text.printable import printable

from .report import last_text, next_text, runs_document, success_text, timer_text
from .status import ScrubStatus

SCRUBS_HEAD: Final = (
    "SCRUB",
    "STORE",
    "SHARE",
    "LAST SUCCESS",
    "LAST RUN",
    "OLDEST UNVERIFIED",
    "FINDINGS",
    "NEXT",
)


def scrub_row(status: ScrubStatus, *, scheduler: bool = True) -> tuple[str, ...]:
    """Return a scrub as a row under `SCRUBS_HEAD`. Without a *scheduler*, cron or systemd starts the runs."""
    scrub, state = status.scrub, status.state
    return (
        scrub.name,
        printable(scrub.store),
        f"{scrub.share} every {scrub.every}",
        success_text(status.success_at, status.freshness),
        printable(last_text(status)),
        "-" if state is None else duration(time.time() - state.oldest_at),
        "-" if state is None else f"{state.findings:,}",
        next_text(status.next_at) if scheduler else timer_text(status),
    )


def scrub_document(status: ScrubStatus) -> dict[str, Any]:
    """Return a scrub as a JSON document."""
    scrub, state = status.scrub, status.state
    document: dict[str, Any] = {
        "scrub": scrub.name,
        "store": scrub.store,
        "every": scrub.every,
        "share": scrub.share,
        "in_file": True,
        **runs_document(status),
        "oldest_unverified": None,
        "oldest_unverified_seconds": None,
        "shares": {"total": scrub.shares, "verified": 0, "next": 0},
        "cycle": None,
        "findings": None,
        "findings_total": None,
    }
    if state is None:
        return document
    return document | {
        "oldest_unverified": moment(state.oldest_at),
        "oldest_unverified_seconds": round(max(0.0, time.time() - state.oldest_at), 3),
        "shares": {"total": state.shares, "verified": state.verified, "next": state.share},
        "cycle": {
            "number": state.cycle,
            "began": moment(state.cycle_at),
            "first_began": moment(state.began_at),
            "first_began_why": state.why,
        },
        "findings": state.findings,
        "findings_total": state.findings_total,
    }
