"""
Patterns of paths that are left out of a snapshot.

A pattern is a regular expression. It is searched for in the absolute path of each file, directory and link, without a
slash at the end. A directory whose path matches is left out with all that is in it. The root itself is never matched.

*linear*: patterns may come from anybody who may submit a job, so they are matched by RE2, in time that grows with the
length of the path alone. The real snapdir uses Rust's `regex`, whose syntax is nearly the same. A pattern that the two
read differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from snapferry.stores.errors import InvalidPattern

# What Unicode counts as word characters: letters, marks, decimal digits, numbers that are letters (as Roman ones),
# connectors, the two joiners, and letters in circles and squares. RE2 has no name for the last ones.
_WORD: Final = (
    r"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}"
    r"\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}"
)

# Classes of Rust's regex count every alphabet; those of RE2 count ASCII alone.
_UNICODE: Final = {
    "d": r"\p{Nd}",
    "D": r"\P{Nd}",
    "s": r"[\t-\r \x{85}\p{Z}]",
    "S": r"[^\t-\r \x{85}\p{Z}]",
    "w": f"[{_WORD}]",
    "W": f"[^{_WORD}]",
}

# Word boundaries count ASCII alone in RE2. \C is a byte there, \Q begins a quotation, \< is a character, and so is \07.
_DIFFERENT: Final = "bBCQE<>0123456789"

_SET_OPERATIONS: Final = ("&&", "--", "~~")

# After \p, \P and \x. RE2 alone has \p{^L}.
_braces: Final = re.compile(r"\{[^^}]*\}").match

_repetition: Final = re.compile(r"\{\d+(?:,\d*)?\}").match

_head_of_class: Final = re.compile(r"\[\^?\]?").match

_MEMORY: Final = 16 * 1024 * 1024


def excluder(patterns: Iterable[str]) -> Callable[[str], bool] | None:
    """
    Return a function that tells whether a path matches one of *patterns*, None where there are none.

    Raises `InvalidPattern`.
    """
    texts = list(patterns)
    if not texts:
        return None
    # Not imported by processes that exclude nothing.
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    for text in texts:
        try:
            re2.compile(_translated(text), options)
        except UnicodeEncodeError:
            raise InvalidPattern("", ascii(text), "is not UTF-8") from None
        except re2.error as error:
            said = error.args[0] if error.args else ""
            said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
            raise InvalidPattern("", text, f"is not a pattern: {said}") from None
    try:
        found = re2.compile("|".join(f"(?:{_translated(text)})" for text in texts), options)
    except re2.error:
        raise InvalidPattern("", "", "the patterns are too large together") from None
    search = found.search
    return lambda path: search(path) is not None


def _translated(pattern: str) -> str:
    """Return *pattern* for RE2. Raises `InvalidPattern` where RE2 reads it differently."""
    parts: list[str] = []
    at, in_class = 0, False
    while at < len(pattern):
        part = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
        if len(part) == 2:
            parts.append(_escape(pattern, part[1], in_class=in_class))
            if part[1] in "pPx" and (braces := _braces(pattern, at + 2)):
                parts.append(braces.group())
                part += braces.group()
        elif in_class and pattern.startswith("[:", at) and (end := pattern.find(":]", at)) >= 0:
            part = pattern[at : end + 2]
            parts.append(part)
        elif in_class:
            if part == "[" or pattern.startswith(_SET_OPERATIONS, at):
                raise InvalidPattern(
                    "", pattern, "has an operation on classes, which patterns do not support"
                )
            in_class = part != "]"
            parts.append(part)
        else:
            if part == "{" and not _repetition(pattern, at):
                raise InvalidPattern("", pattern, "has { without numbers; write \\{ for the character")
            if head := _head_of_class(pattern, at):
                in_class, part = True, head.group()
            parts.append(part)
        at += len(part)
    return "".join(parts)


def _escape(pattern: str, char: str, *, in_class: bool) -> str:
    if char in _DIFFERENT or (in_class and char in "SW"):
        raise InvalidPattern("", pattern, f"has \\{char}, which patterns do not support")
    replaced = _UNICODE.get(char, f"\\{char}")
    return replaced[1:-1] if in_class and replaced.startswith("[") else replaced
