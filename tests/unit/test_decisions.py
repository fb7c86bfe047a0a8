"""The records of decisions in docs/adr: one form for all, an index of all, and links that lead somewhere."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "adr"
INDEX = (FOLDER / "README.md").read_text()
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
EACH = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)

# In this order; not every decision was measured.
SECTIONS = ["Context", "Decision", "Measured", "Passed over", "Consequences"]
OPTIONAL = {"Measured", "Passed over"}


def test_records_are_numbered_without_a_gap() -> None:
    numbers = [int(record.name[:4]) for record in RECORDS]
    assert numbers == list(range(1, len(RECORDS) + 1))


@EACH
def test_a_record_has_the_form_of_all(record: Path) -> None:
    text = record.read_text()
    title = re.match(r"# (\d+)\. \S.*\n\n", text)
    head = re.search(
        r"^\*\*Date\.\*\* (\d{4}-\d\d-\d\d)\. \*\*Status\.\*\* (Accepted|Replaced)\b", text, re.MULTILINE
    )
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)

    assert title is not None
    assert int(title[1]) == int(record.name[:4])
    assert head is not None
    assert date(2026, 11, 23) <= date.fromisoformat(head[1])
    assert sections == [name for name in SECTIONS if name in sections]
    assert set(SECTIONS) - OPTIONAL <= set(sections)


@EACH
def test_the_index_has_number_date_and_title_of_each_record(record: Path) -> None:
    text = record.read_text()
    number, title = re.match(r"# (\d+)\. (.*)", text).groups()  # type: ignore[union-attr]
    dated = re.search(r"\*\*Date\.\*\* ([0-9-]+)", text)[1]  # type: ignore[index]

    assert f"| [{number}]({record.name}) | {dated} | {title} | " in INDEX


@EACH
def test_links_lead_to_files(record: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", record.read_text())

    assert [link for link in links if not (FOLDER / link).is_file()] == []


@EACH
def test_code_that_a_record_names_exists(record: Path) -> None:
    root = FOLDER.parents[1]
    text = record.read_text()
    paths = re.findall(r"`((?:stores|workers|orchestrator|tests|docs|deploy)/[a-z0-9_/.]+)`", text)
    modules = re.findall(r"`snapferry\.((?:stores|workers|orchestrator)\.[a-z0-9_]+)[.a-zA-Z0-9_]*`", text)
    named = [*paths, *(module.replace(".", "/") for module in modules)]

    assert [name for name in named if not (root / name).exists() and not (root / f"{name}.py").exists()] == []
