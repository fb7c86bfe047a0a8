"""The time zone of the pages: chosen in the address, kept in a cookie, and known to this machine."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.dashboard import zones
from snapferry.orchestrator.dashboard.views.sources import Sources
from tests.unit.test_dashboard_control import dashboard

# 2026-07-01 12:00 UTC.
SUMMER = 1_782_907_200.0


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "12:00 UTC"),
        ("Europe/Berlin", "14:00 CEST"),
        ("Asia/Kolkata", "17:30 IST"),
        ("America/New_York", "08:00 EDT"),
        ("../../etc/passwd", "12:00 UTC"),
        ("Europe", "12:00 UTC"),
        ("", "12:00 UTC"),
    ],
)
def test_times_are_shown_in_the_zone_and_in_utc_if_it_is_not_known(zone: str, shown: str) -> None:
    assert zones.local(SUMMER, zone).strftime("%H:%M %Z") == shown


def test_every_zone_to_choose_from_is_known_and_the_chosen_one_is_among_them() -> None:
    assert all(map(zones.is_zone, zones.COMMON))
    assert zones.choices("UTC") == list(zones.COMMON)
    assert "Antarctica/Troll" in zones.choices("Antarctica/Troll")


def test_the_choice_is_kept_in_a_cookie_and_nonsense_is_not(sources: Sources) -> None:
    with dashboard(sources, control=False) as served:
        chosen = served.ask("/?tz=Europe/Berlin&state=failed")
        cookie = chosen.headers["set-cookie"]
        assert cookie.replace('"', "").startswith("tz=Europe/Berlin;")
        assert "HttpOnly" in cookie
        assert "<option selected>Europe/Berlin</option>" in chosen.body
        assert '<input type="hidden" name="state" value="failed">' in chosen.body

        for nonsense in ("Mars/Olympus", "%22%3E%3Cscript%3E", "../x", "x" * 300):
            page = served.ask(f"/?tz={nonsense}")
            assert "set-cookie" not in page.headers
            assert "<option selected>UTC</option>" in page.body
            assert "script>" not in page.body.partition("<main")[2]
