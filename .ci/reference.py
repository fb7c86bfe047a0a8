"""
Write docs/commands.md from the help of all commands, and docs/api.md from the docstrings of the Python API.

With --check, exit 1 if one of the pages is not current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import reference_api

from snapferry.orchestrator.cli.group import SECTIONS, cli

DOCS = Path(__file__).resolve().parents[1] / "docs"

# Columns of a help text: with its margin of four, the lines fit the page.
WIDTH = 100
SIZE: dict[str, Any] = {"terminal_width": WIDTH, "max_content_width": WIDTH}

HEAD = """\
# Commands

All commands with all of their options, as `snapferry COMMAND --help` shows them. `make reference` writes this page.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([HEAD, *_contents(), *_sections()])


def _contents() -> Iterator[str]:
    yield "| section | commands |"
    yield "|---|---|"
    for section, commands in SECTIONS.items():
        yield f"| {section} | {', '.join(f'[{name}](#snapferry-{name})' for name in commands)} |"
    yield ""


def _sections() -> Iterator[str]:
    root = click.Context(cli, info_name="snapferry", **cli.context_settings | SIZE)
    for section, commands in SECTIONS.items():
        yield f"## {section}\n"
        for name in commands:
            yield from _command(root, name)


def _command(parent: click.Context, name: str) -> Iterator[str]:
    """Yield the section of a command of *parent*, and those of its further commands."""
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent, **SIZE)
    yield f"### {context.command_path.replace(' [OPTIONS]', '')}\n"
    yield from (f"    {line}".rstrip() for line in command.get_help(context).splitlines())
    yield ""
    if isinstance(command, click.Group):
        for further in command.list_commands(context):
            yield from _command(context, further)


def main() -> None:
    """Write the pages, or check them."""
    for name, made in (("commands.md", page()), ("api.md", reference_api.page())):
        if "--check" not in sys.argv:
            (DOCS / name).write_text(made)
        elif not (DOCS / name).exists() or made != (DOCS / name).read_text():
            sys.exit(f"docs/{name} is not current: run make reference")


if __name__ == "__main__":
    main()
