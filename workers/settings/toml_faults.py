"""What is wrong in a configuration file: the line, the key, the reason, and what was probably meant."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from snapferry.stores.text.printable import shortened
from snapferry.stores.text.similar import suggestion
from snapferry.workers.faults import fault_text

_Place = tuple[str | int, ...]

# A string, a comment, a bracket, the end of a line, or other characters.
_PIECE: Final = re.compile(
    r"""\"{3}(?:[^"\\]|\\.|"(?!""))*\"{3}|'{3}(?:[^']|'(?!''))*'{3}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|\n|[\[\]{}]|.""",
    re.DOTALL,
)
_KEY: Final = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^"'=])*""")

# Characters of a message: more than the longest list of known keys, and less than some values.
_MOST_SHOWN: Final = 1000


class Fault(PydanticCustomError):
    """A fault that a validator of the whole file finds: *text*, at the key *place*."""

    def __new__(cls, text: str, place: _Place = ()) -> Self:
        """Return the fault. Raise it inside a validator."""
        return super().__new__(cls, "fault", "{text}", {"text": text, "place": place})


def first_fault(error: ValidationError, model: type[BaseModel], text: str) -> tuple[int | None, str]:
    """
    Return the line of the first fault in the file *text*, and the fault in words, one line.

    *model* is what the file was read as. The line is None if no line of the file belongs to the fault.
    """
    # A misspelt key is the reason why the right one is missing.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    context = first.get("ctx", {})
    place: _Place = tuple(context.get("place", ())) or first["loc"]
    # Messages count tables from 1.
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in place if part != "[key]")
    message = _words(first, model, place)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    told = shortened(f"{where}: {message}" if where else message, _MOST_SHOWN)
    return line_of(text, place), f"{told}{more}"


def _words(fault: ErrorDetails, model: type[BaseModel], place: _Place) -> str:
    kind, given = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        known = _keys(model, place[:-1])
        meant = suggestion(str(place[-1]), known)
        return f"unknown key{meant}" if meant else f"unknown key; known keys: {', '.join(known)}"
    if kind == "tuple_type" and isinstance(given, dict):
        return f"must be a list of tables. Write [[{place[-1]}]] instead of [{place[-1]}]"
    if kind == "tuple_type":
        return "must be a list, in square brackets"
    if kind in ("model_type", "dict_type"):
        extra = f". Write [{place[-1]}] instead of [[{place[-1]}]]" if isinstance(given, list) else ""
        return f"must be a table{extra}"
    if kind == "string_type":
        return "must be a string, in quotes"
    words = fault_text(fault)
    allowed = re.findall(r"'([^']*)'", words) if kind in ("enum", "literal_error") else []
    return words + (suggestion(given, allowed) if isinstance(given, str) else "")


def _keys(model: type[BaseModel], place: _Place) -> list[str]:
    """Return the keys that the table at *place* may have."""
    found: type[BaseModel] | None = model
    for part in place:
        if isinstance(part, str) and found is not None:
            by_key = {field.alias or name: field.annotation for name, field in found.model_fields.items()}
            found = _model_in(by_key.get(part))
    return [field.alias or name for name, field in found.model_fields.items()] if found is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """Return the line of the key or table at *place* in the TOML file *text*, or of the closest table around it."""
    lines: Mapping[_Place, int] = dict(reversed(list(_places(text))))
    found = tuple(place)
    while found and found not in lines:
        found = found[:-1]
    return lines.get(found)


def _places(text: str) -> Iterator[tuple[_Place, int]]:
    """Yield each table and each key of a TOML file with its line. Tables of a list have their index, from 0."""
    counts: Counter[_Place] = Counter()
    table: _Place = ()
    for line, statement in _statements(text):
        listed = statement.startswith("[[")
        if not statement.startswith("["):
            yield (*table, *_key(_KEY.match(statement)[0])), line  # type: ignore[index]  # it may match ""
            continue
        keys = _key(statement.strip("[] \t"))
        table = ()
        for number, key in enumerate(keys, 1):
            table = (*table, key)
            counts[table] += listed and number == len(keys)
            if counts[table]:
                table = (*table, counts[table] - 1)
        if listed:
            yield table[:-1], line
        yield table, line


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the headers of tables and the pairs of keys and values of a TOML file, each with its first line."""
    line, begun, depth = 1, 1, 0
    parts: list[str] = []
    for piece in (found[0] for found in _PIECE.finditer(f"{text}\n")):
        if piece == "\n" and depth == 0:
            if statement := "".join(parts).strip():
                yield begun, statement
            parts = []
        elif not piece.startswith("#"):
            depth += (piece in "[{") - (piece in "]}")
            if not parts:
                begun = line
            parts.append(piece)
        line += piece.count("\n")


def _key(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key, () for a text that is none."""
    try:
        found: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    parts = []
    while isinstance(found, dict):
        [(part, found)] = found.items()
        parts.append(part)
    return tuple(parts)
