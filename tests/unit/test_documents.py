"""Links between documents lead somewhere, and lists in them are complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from snapferry.orchestrator.cli.group import cli
from snapferry.stores.backends.s3.options import PARAMETERS as S3_PARAMETERS
from snapferry.workers.settings.environment import Settings
from snapferry.workers.settings.schedule_tables import Mirror, Scrub

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

# Names of checks begin with what they are about. jobs.html is a page of the dashboard.
CHECK = re.compile(r'"((?:broker|embedded|file|fleet|jobs|pair|s3|source|store)\.(?!html)[a-z_]+)"')

_link = re.compile(r"\]\(([^)\s]+)\)")
_code = re.compile(r"^```.*?^```|^(?: {4}[^\n]*\n)+|`[^`]*`", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """Return the text of *page* without code."""
    return _code.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of *page*."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    """Yield the links of *page* that stay in the repository."""
    yield from (link for link in _link.findall(prose(page)) if "://" not in link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_page_on_configuration_names_every_setting() -> None:
    page = (ROOT / "docs" / "configure.md").read_text()

    variables = [f"SNAPFERRY_{field.upper()}" for field in Settings.model_fields]
    assert [name for name in variables if not re.search(rf"^\| .*`{name}`.* \|$", page, re.MULTILINE)] == []


def test_the_page_on_configuration_names_every_parameter_of_an_s3_store() -> None:
    page = (ROOT / "docs" / "configure.md").read_text()
    section = page.split("\n### Parameters of S3 stores\n", 1)[1].split("\n##", 1)[0]

    assert [name for name in S3_PARAMETERS if f"`{name}`" not in section] == []


def test_the_page_on_schedules_names_every_key_of_a_mirror() -> None:
    page = (ROOT / "docs" / "schedules.md").read_text()
    section = page.split("\n### Options of a mirror\n", 1)[1].split("\n##", 1)[0]
    keys = [name.strip("_").replace("_", "-") for name in Mirror.model_fields]

    assert [key for key in keys if f"`{key}`" not in section] == []


def test_the_page_on_scrubs_names_every_key_of_a_scrub() -> None:
    page = (ROOT / "docs" / "scrub.md").read_text()
    section = page.split("\n### Options of a scrub\n", 1)[1].split("\n##", 1)[0]
    keys = [name.strip("_").replace("_", "-") for name in Scrub.model_fields]

    assert [key for key in keys if f"`{key}`" not in section] == []


def test_the_page_on_json_names_every_check_of_the_doctor() -> None:
    page = (ROOT / "docs" / "json.md").read_text()
    found = {
        name
        for package in ("stores", "workers", "orchestrator")
        for file in (ROOT / package).rglob("*.py")
        for name in CHECK.findall(file.read_text())
    }

    assert {"fleet.access", "store.allowed", "s3.confirm"} <= found
    assert [name for name in sorted(found) if f"`{name}`" not in page] == []


def shown(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of snapferry in the code of *page*, and the options given to it."""
    code = "\n".join(_code.findall(page.read_text()))
    for command, rest in re.findall(r"^[ $`]*snapferry ([a-z]+)([^#\n`|]*)", code, re.MULTILINE):
        # What follows -- is for Celery.
        yield command, re.findall(r"(?<=\s)--?[a-z][a-z-]*", re.split(r"\s--\s|  snapferry ", rest)[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_shown_command_has_the_options_that_are_given_to_it(page: Path) -> None:
    for name, options in shown(page):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        known = {option for param in command.params for option in param.opts}
        assert set(options) <= known | {"--help", "-h"}, (name, options)


def test_the_generated_pages_are_current() -> None:
    made = subprocess.run(
        [sys.executable, ".ci/reference.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "SNAPFERRY_BROKER_URL": "redis://elsewhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")


# Parts of the repository whose files documents name.
PATH = re.compile(r"`((?:\.ci|benchmarks|deploy|orchestrator|stores|tests|workers)/[\w./-]+)`")


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent.name != "adr"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_named_file_exists(page: Path) -> None:
    assert [name for name in PATH.findall(page.read_text()) if not (ROOT / name).exists()] == []


def tour_steps() -> list[tuple[str, str]]:
    """Return file and name of each step of the tour of the code."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    tour = page.partition("## A tour of the code")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. `([^`]+)`, `([^`]+)`:", tour, re.MULTILINE)


def test_the_tour_of_the_code_follows_five_values() -> None:
    assert len(tour_steps()) > 30


@pytest.mark.parametrize(("file", "name"), tour_steps(), ids=lambda part: part)
def test_each_step_of_the_tour_of_the_code_exists(file: str, name: str) -> None:
    assert name in (ROOT / file).read_text()
