"""The options of a job in words, as they are given on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from snapferry.orchestrator.reporting.text.options import option_texts
from snapferry.workers.messages import (
    Action,
    Budget,
    JobSpec,
    Order,
    Prune,
    Scope,
    ScrubPart,
    StoreRef,
    TreeOptions,
    VerifyOptions,
)


def texts(**fields: Any) -> list[str]:
    given: dict[str, Any] = {"source": StoreRef(url="/a"), "destination": StoreRef(url="/b")}
    return option_texts(JobSpec(**given, **fields))


def test_a_job_without_options_has_none() -> None:
    assert texts() == []


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"everything": True, "order": Order.NEWEST}, ["--all", "--order newest"]),
        ({"trust_manifest": True, "names": True}, ["--trust-manifest", "--names"]),
        ({"server_side": True}, ["--server-side"]),
        (
            {"prune": Prune(max_delete=0, force=True)},
            ["--delete", "--max-delete 0", "--force-delete"],
        ),
        (
            {"budget": Budget(max_objects=1000, max_bytes=2 * 10**9, max_cost=1.5, currency="EUR")},
            ["--max-objects 1,000", "--max-bytes 2.0 GB", "--max-cost 1.5 EUR"],
        ),
        (
            {"concurrency": 8, "patience": 90.0, "dry_run": True},
            ["--jobs 8", "--patience 1 min 30 s", "--dry-run"],
        ),
        (
            {"action": Action.VERIFY, "verify": VerifyOptions(fast=True, max_seconds=7200)},
            ["--max-time 2 h", "--fast"],
        ),
        ({"action": Action.VERIFY, "scope": Scope(samples=30)}, ["--sample 1/30"]),
        ({"scrub": ScrubPart(name="weekly", shares=7, share=2)}, ["share 3 of 7 of scrub weekly"]),
        ({"action": Action.PUSH, "everything": True}, []),
        (
            {"action": Action.PUSH, "tree": TreeOptions(exclude=("*.tmp",) * 7, follow=False)},
            ["--exclude *.tmp"] * 5 + ["and 2 more patterns", "--no-follow"],
        ),
        ({"action": Action.PULL, "tree": TreeOptions(delete=True, linked=True)}, ["--delete", "--linked"]),
        (
            {"action": Action.HEAL, "more_sources": (StoreRef(url="s3://b/x?region=y"),)},
            ["--from s3://b/x"],
        ),
    ],
    ids=str,
)
def test_options_are_shown_as_they_are_given(fields: dict[str, Any], shown: list[str]) -> None:
    assert texts(**fields) == shown
