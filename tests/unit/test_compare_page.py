"""The page that compares snapferry with other tools takes its figures and its statements from named places."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "compare.md").read_text()

# A number with its unit. Latencies are conditions of a measurement, not results.
FIGURE = re.compile(r"(?<![\d.,])(\d[\d,]*(?:\.\d+)?) (s|MB|requests)\b")

OWN_PLACES = {
    "rclone": ("rclone.org/", "github.com/rclone/"),
    "s5cmd": ("github.com/peak/",),
    "JuiceFS sync": ("juicefs.com/docs/", "github.com/juicedata/"),
    "restic": ("restic.net/", "restic.readthedocs.io/"),
    "snapdir": ("github.com/snapdir/",),
}


def measured(unit: str) -> set[str]:
    """Return the numbers with *unit* on the page of benchmarks, with all their decimals."""
    benchmarks = (DOCS / "benchmarks.md").read_text()
    return {number.replace(",", "") for number, found in FIGURE.findall(benchmarks) if found == unit}


def is_rounded(shown: str, exact: str) -> bool:
    """Return whether *shown* is *exact*, rounded to the decimals of *shown*."""
    step = 10.0 ** -len(shown.partition(".")[2])
    return abs(float(shown) - float(exact)) <= step / 2 + 1e-9


@pytest.mark.parametrize(("number", "unit"), sorted(set(FIGURE.findall(PAGE))))
def test_every_figure_is_one_of_the_benchmarks(number: str, unit: str) -> None:
    shown = number.replace(",", "")
    assert any(is_rounded(shown, exact) for exact in measured(unit)), (number, unit)


@pytest.mark.parametrize("tool", OWN_PLACES)
def test_a_section_links_to_the_documentation_of_its_tool_only(tool: str) -> None:
    section = PAGE.split(f"\n## {tool}\n", 1)[1].split("\n## ", 1)[0]
    links: list[str] = re.findall(r"\]\((https?://[^)\s]+)\)", section)

    assert len(links) >= 4
    for link in links:
        parts = urlsplit(link)
        assert f"{parts.netloc}{parts.path}".startswith(OWN_PLACES[tool]), link


def test_every_tool_has_what_it_does_better_and_when_to_choose_it() -> None:
    for tool in OWN_PLACES:
        section = PAGE.split(f"\n## {tool}\n", 1)[1].split("\n## ", 1)[0]
        assert "**Better than snapferry:**" in section
        assert "**What snapferry adds:**" in section
        assert f"**Choose {tool}**" in section
