"""One word per thing: documents use the words of the glossary, and not their synonyms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_documents import PAGES, prose

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
ROWS = re.findall(r"^\| (\*\*.+?) \| .+ \| ?(.*?) ?\|$", GLOSSARY, re.MULTILINE)
AVOIDED = [word for _, words in ROWS for word in words.split(", ") if word]

# These pages use the words of other tools, or record what was decided when. The changelog names what changed.
OTHERS = ("compare.md", "benchmarks.md", "glossary.md", "CHANGELOG.md")
USED = [page for page in PAGES if page.name not in OTHERS and page.parent.name != "adr"]


def test_the_glossary_can_be_read() -> None:
    assert len(ROWS) > 50
    assert {"blob", "coordinator", "agent", "private fleet"} <= set(AVOIDED)


def test_no_word_has_two_meanings() -> None:
    words = [word for cell, _ in ROWS for word in re.findall(r"\*\*(.+?)\*\*", cell)]
    assert len(words) == len(set(words))
    assert set(words) & set(AVOIDED) == set()


@pytest.mark.parametrize("page", USED, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_use_one_word_per_thing(page: Path) -> None:
    text = " ".join(re.sub(r"https?://[^\s)]+", "", prose(page)).split())
    assert re.findall(rf"\b(?:{'|'.join(map(re.escape, AVOIDED))})s?\b", text, re.IGNORECASE) == []
