"""Scrubs on a real fleet: the scheduler announces, an orchestrator queues the next share, workers read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.schedules.scrub_report import scrub_document
from snapferry.orchestrator.schedules.status import scrub_statuses
from snapferry.stores.address import Address, object_key
from snapferry.stores.hashing import digest
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import Settings
from tests.sample import make_store, random_files

from .processes import Fleet, finished, program, until
from .test_mirrors import SOONER, scheduler


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Fleet:
    return Fleet(redis_url, tmp_path)


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.workers.settings.schedule_tables.SHORTEST_S", 1)


def standing(fleet: Fleet, config: Path) -> dict[str, Any]:
    """Return where the scrub stands."""
    settings = Settings(broker_url=fleet.url)
    return scrub_document(scrub_statuses(settings, Jobs(settings), read_config(str(config)).scrub)[0])


def test_a_scrub_reads_the_whole_store_share_by_share_and_finds_what_is_wrong(
    fleet: Fleet, tmp_path: Path
) -> None:
    files = random_files(40)
    make_store(tmp_path / "a", files)
    config = tmp_path / "snapferry.toml"
    config.write_text(
        f'[stores]\na = "file://{tmp_path}/a"\n[[scrub]]\nname = "whole"\nstore = "a"\nevery = "2s"\nshare = "1/3"\n'
    )
    before = standing(fleet, config)
    with fleet.orchestrator(before=SOONER) as orchestrator, fleet.worker(), scheduler(fleet, config):
        sound = until(
            lambda: (one := standing(fleet, config))["shares"]["verified"] == 3 and one, "all of it is read"
        )
        path = tmp_path / "a" / object_key(Address(digest(files["./dir 0/file-00000"])))
        path.unlink()
        path.write_bytes(b"other bytes")
        wrong = until(lambda: (one := standing(fleet, config))["findings"] and one, "the damage is found")
        later = until(
            lambda: (one := standing(fleet, config))["shares"]["next"] != wrong["shares"]["next"] and one,
            "the next share follows",
        )
        logged = orchestrator.logged()
    env = {"SNAPFERRY_BROKER_URL": fleet.url, "SNAPFERRY_CONFIG": str(config)}
    table, told = (finished([*program(SOONER), "scrubs", *options], env) for options in ([], ["--json"]))

    assert (before["oldest_unverified"], before["last_job"], before["next"]) == (None, None, None)
    assert (sound["findings"], sound["cycle"]["first_began_why"]) == (0, "none")
    assert sound["oldest_unverified_seconds"] < 300
    assert sound["last_status"]["action"] == "verify"
    assert (wrong["findings"], later["findings"]) == (1, 1)
    assert "job failed" in logged
    assert "1/3 every 2s" in table.out
    (document,) = json.loads(told.out)
    assert document.keys() == later.keys()
    assert document["findings"] == 1
