"""What `snapferry mirrors` and `snapferry scrubs` print about last successes and lateness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.cli.run.scheduling.lists import list_mirrors, list_scrubs
from snapferry.orchestrator.schedules.report import timer_text
from snapferry.orchestrator.schedules.status import ScheduleStatus
from snapferry.workers.ledger import Expected, Freshness, FreshnessLedger, ScheduleRecord

NIGHTLY = '[[mirror]]\nname = "nightly"\nfrom = "/a"\nto = "/b"\nevery = "1h"\n'
BACKUP = '[[scrub]]\nname = "backup"\nstore = "/b"\nevery = "1d"\nshare = "1/2"\n'


@pytest.fixture
def fresh(redis_url: str) -> FreshnessLedger:
    return FreshnessLedger(redis.Redis.from_url(redis_url, decode_responses=True))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "snapferry.toml"
    path.write_text(NIGHTLY + BACKUP)
    monkeypatch.setenv("SNAPFERRY_CONFIG", str(path))
    return str(path)


def succeeded(fresh: FreshnessLedger, name: str, ago: float) -> None:
    at = fresh.now() - ago
    fresh._redis.hset(f"snapferry:mirror:{name}", "since", at - 1)
    fresh.settle(["x"], untold={}, mirrors={name: at}, stores={})


@pytest.mark.parametrize(
    ("ago", "shown", "late"), [(5000, "1 h ago ", False), (3 * 3600 + 130, "3 h ago, late for 1 h ", True)]
)
def test_a_mirror_shows_its_last_success_and_that_it_is_late(
    fresh: FreshnessLedger,
    config: str,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
    ago: float,
    shown: str,
    late: bool,
) -> None:
    fresh.expect([Expected("mirror", "nightly", "1h"), Expected("scrub", "backup", "1d")], replace=True)
    succeeded(fresh, "nightly", ago)

    assert list_mirrors(None, as_json=False, broker=redis_url) == 0
    table = capsys.readouterr()
    assert list_mirrors(None, as_json=True, broker=redis_url) == 0
    (document,) = json.loads(capsys.readouterr().out)

    assert shown in table.out
    assert table.err.startswith("no scheduler is running") or "no scheduler is running" in table.err
    assert document["late"] is late
    assert document["last_success_age_seconds"] == pytest.approx(ago, abs=60)
    assert document["in_file"] is True


def test_what_is_removed_from_the_file_is_named_until_it_is_forgotten(
    fresh: FreshnessLedger, config: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.expect(
        [
            Expected("mirror", "nightly", "1h"),
            Expected("mirror", "old", "1h"),
            Expected("scrub", "old", "1d"),
        ],
        replace=True,
    )
    succeeded(fresh, "old", 3 * 3600 + 130)

    list_mirrors(None, as_json=False, broker=redis_url)
    noted = capsys.readouterr().err
    list_mirrors(None, as_json=True, broker=redis_url)
    documents = json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit) as refused:
        list_mirrors("nightly", as_json=False, broker=redis_url)
    why_not = capsys.readouterr().err
    with pytest.raises(SystemExit) as unknown:
        list_scrubs("other\x1b[1m", as_json=False, broker=redis_url)
    capsys.readouterr()
    assert list_mirrors("old", as_json=False, broker=redis_url) == 0
    capsys.readouterr()
    list_mirrors(None, as_json=False, broker=redis_url)
    after = capsys.readouterr().err

    assert "3 h ago, late for 1 h" in noted
    assert "snapferry mirrors --forget old" in noted
    assert [(one["mirror"], one["in_file"], one["late"]) for one in documents] == [
        ("nightly", True, False),
        ("old", False, True),
    ]
    assert (refused.value.code, unknown.value.code) == (2, 2)
    assert "has the mirror nightly" in why_not
    assert "old" not in after
    assert {one.expected.key for one in fresh.freshness()} == {"mirror:nightly", "scrub:old"}


def test_a_schedule_that_no_scheduler_works_on_is_overdue(
    fresh: FreshnessLedger, config: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beat leaves its schedule in Redis when it dies."""
    for due, shown, noted in ((60, "in ", False), (-30, "now ", False), (-7300, "overdue for 2 h", True)):
        fresh._redis.zadd("snapferry:beat::schedule", {"snapferry:beat:nightly": fresh.now() + due})
        list_mirrors(None, as_json=False, broker=redis_url)
        said = capsys.readouterr()

        assert shown in said.out
        assert ("no scheduler is running" in said.err) is noted


@pytest.mark.parametrize(
    ("late_in", "shown"),
    [
        (90_000.0, "by cron or systemd, late in 1 d 1 h"),
        (-5.0, "by cron or systemd, late"),
        (None, "by cron or systemd"),
    ],
)
def test_without_a_scheduler_the_next_run_is_what_is_known_of_it(late_in: float | None, shown: str) -> None:
    now = 1_000_000.0
    late_at = 0.0 if late_in is None else now + late_in
    freshness = Freshness(Expected("mirror", "nightly", "1d"), now - 9, 0.0, late_at, 0.0, now)

    assert timer_text(ScheduleStatus(ScheduleRecord(), None, None, freshness)).startswith(shown)
    assert timer_text(ScheduleStatus(ScheduleRecord(), None, None, None)) == "by cron or systemd"
