"""Messages that the page on troubleshooting explains are those that the code prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshoot.md").read_text()

# The first cell of each row below "Messages" is a message, with … for what varies.
ROWS = re.findall(
    r"^\| `([^`]+)` \|", PAGE.partition("\n## Messages\n")[2].partition("\n## ")[0], re.MULTILINE
)
# %s and the like in messages of the log.
_placeholder = re.compile(r"%[a-z]")


def texts_of(node: ast.AST) -> Iterator[str]:
    """Yield the strings in *node*, with … for what is put into them."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield _placeholder.sub("…", node.value)
    for child in ast.iter_child_nodes(node):
        yield from texts_of(child)


@cache
def texts() -> str:
    """Return all strings of the product, one after the other."""
    files = (file for part in ("stores", "workers", "orchestrator") for file in (ROOT / part).rglob("*.py"))
    return "\n".join(text for file in sorted(files) for text in texts_of(ast.parse(file.read_text())))


def test_the_page_explains_messages() -> None:
    assert len(ROWS) > 60
    assert len(set(ROWS)) == len(ROWS)


@pytest.mark.parametrize("message", ROWS)
def test_the_code_has_each_explained_message(message: str) -> None:
    fragments = [part.strip(" …") for part in re.split(r"…", message)]
    known = texts()

    assert [part for part in fragments if len(part) > 2 and part not in known] == []
    assert max(map(len, fragments)) > 15
