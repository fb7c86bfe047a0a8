"""What the arguments of a `Client` ask of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.orchestrator.client.requests import Patterns, Places, Requests
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import Settings


@pytest.fixture
def requests() -> Requests:
    settings = Settings()
    return Requests(settings, access_policy(settings, "this program"))


@pytest.mark.parametrize("sources", ["/srv/a", Path("/srv/a"), ["/srv/a"], (Path("/srv/a"),)])
def test_one_source_of_a_heal_needs_no_list(requests: Requests, sources: Places) -> None:
    spec = requests.heal("/srv/b", sources, None)

    assert (spec.source.url, spec.more_sources) == ("file:///srv/a", ())


@pytest.mark.parametrize("exclude", ["/node_modules$", ["/node_modules$"], iter(["/node_modules$"])])
def test_one_pattern_is_not_taken_for_its_letters(requests: Requests, exclude: Patterns) -> None:
    spec = requests.push("/srv/tree", "/srv/b", "", exclude, follow=True)

    assert spec.tree is not None
    assert spec.tree.exclude == ("/node_modules$",)
