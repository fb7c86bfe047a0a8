"""Write docs/man from the help of all commands, a page each; with --check, exit 1 if a page is not current."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from snapferry.orchestrator.cli.group import COMMANDS, SECTIONS, cli
from snapferry.orchestrator.cli.options.declare import MANY, OTHER, Argument, Option

FOLDER = Path(__file__).resolve().parents[1] / "docs/man"

# Marks a paragraph whose lines are kept, as click does.
KEPT = "\b"

# What begins the examples of an epilog.
HEADS = ("Examples:", "Example:")

# What has a meaning in roff, or would be shown as a typographic character.
ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}

VARIABLES = {
    "SNAPFERRY_BROKER_URL": "Redis server of the fleet, as for --broker.",
    "SNAPFERRY_CONFIG": "File that names stores, mirrors and scrubs, as for --config.",
    "SNAPDIR_STORE": "Source of a copy, as for --from.",
    "SNAPFERRY_COMPLETION_TIMEOUT": "Seconds that TAB waits for a store or for Redis; 1.5 by default.",
}


class Block(NamedTuple):
    """A paragraph of a help text; *kept*: with its lines as they are."""

    text: str
    kept: bool


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    root = click.Context(cli, info_name="snapferry", **cli.context_settings)
    found = {"snapferry.1": "\n".join(_main(root)) + "\n"}
    for name in COMMANDS:
        found |= _of_command(root, name)
    return found


def _of_command(parent: click.Context, name: str) -> dict[str, str]:
    """Return the page of a command of *parent*, and those of its further commands."""
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent)
    found = {f"{_page(context)}.1": "\n".join(_lines(context)) + "\n"}
    if isinstance(command, click.Group):
        for further in command.list_commands(context):
            found |= _of_command(context, further)
    return found


def _main(root: click.Context) -> Iterator[str]:
    """Yield the lines of the page snapferry(1)."""
    yield from _head("snapferry", "copy snapshots between content-addressed stores")
    yield ".SH SYNOPSIS"
    yield f"{_bold('snapferry')} {_italic('COMMAND')} [{_italic('OPTIONS')}] [{_italic('ARGUMENTS')}]"
    yield ".SH DESCRIPTION"
    described = [block for block in _blocks(root.command.help or "") if "help page" not in block.text]
    yield from _paragraphs(described)
    yield ".PP"
    yield f"{_bold('snapferry')} {_italic('COMMAND')} {_bold('--help')} prints the help of a command."
    yield ".SH COMMANDS"
    for title, commands in SECTIONS.items():
        yield f".SS {_text(title)}"
        for name, lazy in commands.items():
            yield from _entry(_reference(f"snapferry-{name}"), lazy.summary)
    yield from _epilog(root.command.epilog or "")
    yield ".SH ENVIRONMENT"
    for name, text in VARIABLES.items():
        yield from _entry(_bold(name), text)
    yield ".SH FILES"
    yield from _entry(
        _italic("snapferry.toml"),
        "Names of stores, mirrors and scrubs; read from the working directory, unless --config names another file.",
    )
    yield from _see(
        [f"snapferry-{name}" for name in ("sync", "push", "pull", "verify", "jobs", "completion")]
    )


def _lines(context: click.Context) -> Iterator[str]:
    """Yield the lines of the page of a command."""
    command = context.command
    blocks = _blocks(command.help or "")
    path = context.command_path
    yield from _head(_page(context), _summary(context, blocks[0].text))
    yield ".SH SYNOPSIS"
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"{_bold(path)} {re.sub('[A-Z][A-Z_]*', lambda found: _italic(found[0]), _text(pieces))}"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(blocks)
    yield from _parameters(context)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for name in command.list_commands(context):
            further = command.get_command(context, name)
            assert further is not None
            yield from _entry(_reference(f"{_page(context)}-{name}"), further.get_short_help_str())
    yield from _epilog(command.epilog or "")
    yield from _environment(command)
    yield from _see(_related(context))


def _head(page: str, summary: str) -> Iterator[str]:
    yield '.\\" Written by make reference from the help of the command.'
    yield f'.TH {_text(page.upper())} 1 "" "snapferry" "Commands of snapferry"'
    # Names of options and commands are not hyphenated.
    yield from (".nh", ".ad l", ".SH NAME")
    yield f"{_text(page)} \\- {_text(summary)}"


def _summary(context: click.Context, first: str) -> str:
    """Return the line of a command in a list of pages."""
    lazy = COMMANDS.get(context.info_name or "") if context.parent and not context.parent.parent else None
    text = lazy.summary if lazy else first.partition(". ")[0].removesuffix(".")
    return text[0].lower() + text[1:]


def _parameters(context: click.Context) -> Iterator[str]:
    """Yield arguments and options, by the sections of the help page."""
    sections: dict[str, list[tuple[str, str]]] = {}
    arguments: list[tuple[str, str]] = []
    few = sum(isinstance(each, click.Option) for each in context.command.get_params(context)) < MANY
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        if isinstance(parameter, Argument):
            arguments.append(record)
        else:
            section = parameter.section if isinstance(parameter, Option) else OTHER
            sections.setdefault(OTHER if few else section, []).append(record)
    if arguments:
        yield ".SH ARGUMENTS"
        for name, text in arguments:
            yield from _entry(_italic(name), text)
    yield ".SH OPTIONS"
    for title in sorted(sections, key=lambda title: title == OTHER):
        if not few:
            yield f".SS {_text('Other' if title == OTHER else title)}"
        for names, text in sections[title]:
            yield from _entry(_option(names), text)


def _option(names: str) -> str:
    """Return the names of an option in bold, and its value in italics."""
    return re.sub(
        r"(-{1,2}[a-z][a-z-]*)|([A-Z1][A-Z/]*)",
        lambda found: _bold(found[1]) if found[1] else _italic(found[2]),
        names,
    )


def _epilog(text: str) -> Iterator[str]:
    """Yield the sections of an epilog: examples, and exit codes."""
    examples = 0
    for block in _blocks(text):
        first, *rest = block.text.splitlines()
        if first == "Exit codes:":
            yield ".SH EXIT STATUS"
            yield from _codes(rest)
            continue
        if first in HEADS and not rest:
            continue
        yield ".PP" if examples else ".SH EXAMPLES"
        examples += 1
        yield from _example(rest if first in HEADS else [first, *rest])


def _example(lines: list[str]) -> Iterator[str]:
    """Yield an example: what it is for, and below that the commands, which are indented more."""
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    commands: list[str] = []
    for line in [*lines, ""]:
        deeper = len(line) - len(line.lstrip()) > margin
        if deeper or line.strip().startswith("snapferry "):
            commands.append(line.strip() if not commands else line[margin + 2 :] if deeper else line.strip())
            continue
        if commands:
            yield from (".RS 4", ".nf", *map(_line, commands), ".fi", ".RE")
            commands = []
        if line.strip():
            yield from _filled(line)


def _codes(lines: list[str]) -> Iterator[str]:
    for line in lines:
        code, _, meaning = line.strip().partition(" ")
        yield from _entry(_bold(code), meaning.strip())


def _environment(command: click.Command) -> Iterator[str]:
    """Yield the variables that set options of *command*."""
    found = {
        str(each.envvar): each.opts[-1 if each.opts[0].count("-") == 1 else 0]
        for each in command.params
        if isinstance(each, click.Option) and each.envvar
    }
    if found:
        yield ".SH ENVIRONMENT"
        for name, option in found.items():
            yield from _entry(_bold(name), f"Sets {option}. The option of the command line is stronger.")


def _related(context: click.Context) -> list[str]:
    """Return the pages of the same section, and of the commands that the help names."""
    names = context.command_path.split()[1:]
    section = next(commands for commands in SECTIONS.values() if names[0] in commands)
    text = f"{context.command.help} {context.command.epilog}"
    named = [name for name in re.findall(r"snapferry ([a-z]+)", text) if name in COMMANDS]
    pages = ["snapferry", *(f"snapferry-{name}" for name in COMMANDS if name in section or name in named)]
    return [page for page in pages if page != _page(context)]


def _see(pages: list[str]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    *before, last = map(_reference, pages)
    yield from (f"{page}," for page in before)
    yield last


def _blocks(text: str) -> list[Block]:
    """Return the paragraphs of a help text."""
    found: list[Block] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        kept, *further = paragraph.split(f"{KEPT}\n")
        if kept.strip():
            found.append(Block(kept.strip("\n"), kept=False))
        found += [Block(part.strip("\n"), kept=True) for part in further]
    return found


def _paragraphs(blocks: list[Block]) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if number:
            yield ".PP"
        if block.kept:
            yield from (".nf", *map(_line, block.text.splitlines()), ".fi")
        else:
            yield from _filled(block.text)


def _entry(term: str, text: str) -> Iterator[str]:
    yield from (".TP", term, *_filled(text))


def _page(context: click.Context) -> str:
    return context.command_path.replace(" [OPTIONS]", "").replace(" ", "-")


def _reference(page: str) -> str:
    return f"{_bold(page)}(1)"


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_text(text)}\\fR"


def _filled(text: str) -> list[str]:
    """Return a paragraph as lines that are easy to compare."""
    lines = textwrap.wrap(" ".join(text.split()), 78, break_long_words=False, break_on_hyphens=False)
    return list(map(_line, lines))


def _line(text: str) -> str:
    """Return *text* as a line of its own, which is no request."""
    escaped = _text(text)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _text(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in text)


def main() -> None:
    """Write the pages, or check them."""
    made = pages()
    kept = {path.name: path.read_text() for path in FOLDER.glob("*.1")}
    if "--check" in sys.argv:
        stale = sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
        if stale:
            sys.exit(f"not current in docs/man: {', '.join(stale)}; run make reference")
        return
    FOLDER.mkdir(exist_ok=True)
    for name in kept.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
