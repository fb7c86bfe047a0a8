"""Configuration of Sphinx for the site that build.py makes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
_project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]

project = "snapferry"
author = "snapferry maintainers"
release = version = _project["version"]
html_title = f"snapferry {release}"

extensions = ["myst_parser"]
myst_heading_anchors = 6
# Lines that begin with % or + are text, as on any host of code.
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target", "myst_role"]
highlight_language = "text"
# Samples of output need not be whole, and a file that is shown may have a syntax of its own.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
exclude_patterns = ["raw"]
html_copy_source = False
# A summary of a result would be fetched from its page, which a browser refuses for pages on a disk.
html_show_search_summary = False
html_search_scorer = str(HERE / "scorer.js")
html_use_index = False
html_theme_options = {"navigation_with_keys": False}

# Words with which a block of commands begins.
_COMMAND = re.compile(
    r"(?:snapferry|pip|python3?|docker|kubectl|systemctl|export|install|redis-server|make|cp|umask|cd|mkdir|curl|git|"
    r"celery|until|kill|printf|cat|(?:object|job|bucket|id|password)=|\.ci/)"
)


# The text of inline code in a page.
_NAME = re.compile(r'(?<=<span class="pre">)[^<]+')


def language_of(code: str) -> str | None:
    """Return the language of a block of *code* that names none, or None."""
    first = code.lstrip().partition("\n")[0]
    if first.startswith("$ "):
        return "console"
    if re.match(r"(from [\w.]+ )?import |with Client\(", first):
        return "python"
    if first.startswith(("{", "[{")):
        return "json"
    if re.match(r"\[{1,2}[a-z][\w.\"-]*\]{1,2}$", first):
        return "toml"
    if re.match(r"\[[A-Z]\w+\]$", first):
        return "ini"
    return "bash" if _COMMAND.match(first) else None


def colour_blocks(app: Sphinx, tree: nodes.document) -> None:
    """Give each indented block of code its language."""
    for block in tree.findall(nodes.literal_block):
        if block.get("language", "text") in ("text", "default", "none") and (
            found := language_of(block.astext())
        ):
            block["language"] = found


def allow_breaks(
    app: Sphinx, name: str, template: str, context: dict[str, Any], tree: nodes.document
) -> None:
    """Let long names break after `_` and `/`, where a line or a cell is too short. In the page, not in its index."""
    if "body" in context:
        context["body"] = _NAME.sub(
            lambda name: re.sub(r"([_/])(?=\w)", r"\1<wbr>", name[0]), context["body"]
        )


def setup(app: Sphinx) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("doctree-read", colour_blocks)
    app.connect("html-page-context", allow_breaks)
