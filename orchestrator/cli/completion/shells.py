"""
The shells: the words of the command line that a script sends, and the lines that it reads.

A script sets three variables. ``_SNAPFERRY_COMPLETE`` is click's own, such as ``bash_complete``. ``_SNAPFERRY_LINE`` is
the command line up to the cursor. ``_SNAPFERRY_WORD`` is the part of the last word that bash replaces: it breaks words
at ``:``, ``=`` and ``@`` as well.

A line of the answer is ``kind TAB value TAB help``. With the kind ``plain`` the value is offered; with ``dir`` or
``file`` the shell itself offers directories or files. With ``path`` the value is a path in a snapshot, which may need
quotes; one that ends with ``/`` is not complete. zsh and fish quote it, for bash it is quoted here.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import Any, ClassVar, Final

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from snapferry.stores.text.printable import shortened

VARIABLE: Final = "_SNAPFERRY_COMPLETE"

TIMEOUT_S: Final = 1.5
"""Seconds in which the question of a TAB is answered, unless ``SNAPFERRY_COMPLETION_TIMEOUT`` sets another time."""

LONGEST_TIMEOUT_S: Final = 300.0

LONGEST_HELP: Final = 100

LONGEST_PATH: Final = 4096

# A value needs no quotes in any shell, and cannot control a terminal.
_is_harmless = re.compile(r"[A-Za-z0-9@._:/+=,-]{1,400}").fullmatch

# What bash interprets in a word without quotes, and between double quotes. Other ASCII characters are harmless or not
# printable.
_interpreted = re.compile(r"[ !\"#$&'()*;<>?\[\\\]^`{|}~]").sub
_interpreted_in_quotes = re.compile(r"[\"$`\\]").sub

# Stands for the cursor: without it, a word that is complete is not told from one that is not.
_CURSOR: Final = "\x1f"


class Shell(ShellComplete):
    """What all shells have in common."""

    script: ClassVar[str]
    """The file of its script."""

    def source(self) -> str:
        """Return the script."""
        files = import_module("importlib.resources").files(__package__)
        text: str = (files / "scripts" / self.script).read_text(encoding="utf-8")
        return text

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words after the command and before the cursor, and the word that is not complete."""
        words = split_arg_string(os.environ.get("_SNAPFERRY_LINE", "").replace(_CURSOR, "") + _CURSOR)
        last = words.pop().removesuffix(_CURSOR) if words else ""
        return [_expanded(word) for word in words[1:]], last

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the words that *incomplete* may become, each as a whole."""
        found = super().get_completions(list(args), incomplete)
        name, mark, _ = incomplete.partition("=")
        if not (mark and name.startswith("--")):
            return found
        return [CompletionItem(f"{name}={item.value or ''}", item.type, item.help) for item in found]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line of *item*, "" for one that is not offered."""
        if item.type == "path":
            path = self.path(str(item.value))
            return f"path\t{path}\t" if path.isprintable() and 0 < len(path) <= LONGEST_PATH else ""
        value = self.shown(str(item.value or ""))
        if item.type != "plain":
            return f"{item.type}\t{value if value.isprintable() else ''}\t"
        if not _is_harmless(value):
            return ""
        return f"plain\t{value}\t{shortened(_first_sentence(item.help or ''), LONGEST_HELP)}"

    def shown(self, value: str) -> str:
        """Return the part of a word that the shell inserts."""
        return value

    def path(self, value: str) -> str:
        """Return a path in a snapshot as the script takes it, "" for one that the shell cannot insert."""
        return value

    def complete(self) -> str:
        """Return the answer, "" if there is none in time."""
        answer_within = import_module(f"{__package__}.bounded").answer_within
        found: str = answer_within(_timeout_s(), super().complete)
        return found


@add_completion_class
class Bash(Shell):
    """bash, which replaces a part of a word only, and shows help in lists alone."""

    name = "bash"
    script = "snapferry.bash"

    def shown(self, value: str) -> str:
        """Return *value* without what stands before the part that bash replaces."""
        _, word = self.get_completion_args()
        part = os.environ.get("_SNAPFERRY_WORD", word)
        return value[len(word) - len(part) :] if word.endswith(part) else value

    def path(self, value: str) -> str:
        """Return the part of *value* that bash replaces, quoted as the user has begun to."""
        _, word = self.get_completion_args()
        quote = open_quote(os.environ.get("_SNAPFERRY_LINE", ""))
        part = os.environ.get("_SNAPFERRY_WORD", word)
        if not quote:
            # As bash has it, with the quotes of the user.
            part = split_arg_string(part + _CURSOR)[-1].removesuffix(_CURSOR)
        rest = value[len(word) - len(part) :] if word.endswith(part) else value
        if quote == "'":
            return "" if quote in rest else rest
        if quote:
            # An exclamation mark between double quotes cannot be quoted.
            return "" if "!" in rest else _interpreted_in_quotes(r"\\\g<0>", rest)
        return _interpreted(r"\\\g<0>", rest)


@add_completion_class
class Zsh(Shell):
    """zsh."""

    name = "zsh"
    script = "_snapferry"


@add_completion_class
class Fish(Shell):
    """fish."""

    name = "fish"
    script = "snapferry.fish"


def script(shell: str) -> str:
    """Return the completion script of *shell*: bash, zsh or fish."""
    kinds: dict[str, type[Shell]] = {kind.name: kind for kind in (Bash, Zsh, Fish)}
    root = import_module("click").Command("snapferry")
    return kinds[shell](root, {}, "snapferry", VARIABLE).source()


def open_quote(line: str) -> str:
    """Return the quote that *line* has begun and not ended, "" for none."""
    quote, escaped = "", False
    for character in line:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif character in "'\"" and quote in ("", character):
            quote = "" if quote else character
    return quote


def _expanded(word: str) -> str:
    """Return *word* with the user's home directory in place of ``~``, as the shell will pass it."""
    return os.path.expanduser(word) if word == "~" or word.startswith("~/") else word


def _first_sentence(text: str) -> str:
    """Return the first sentence of a help text, without its full stop."""
    first = " ".join(text.split()).partition(". ")[0]
    return first.removesuffix(".")


def _timeout_s() -> float:
    try:
        wanted = float(os.environ.get("SNAPFERRY_COMPLETION_TIMEOUT", ""))
    except ValueError:
        return TIMEOUT_S
    return min(wanted, LONGEST_TIMEOUT_S) if wanted > 0 else TIMEOUT_S
