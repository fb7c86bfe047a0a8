"""What is wrong with one value that pydantic refused, in the words of all other messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from snapferry.stores.text.format import counted

_TRUTH: Final = "must be true or false"
_INTEGER: Final = "must be an integer"
_NUMBER: Final = "must be a number"
_OBJECT: Final = "must be an object"

# Kinds of errors of pydantic. Braces are filled from the error's own values.
_TEXTS: Final = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_parsing_size": "has too many digits",
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "string_type": "must be a string",
    "string_unicode": "must be UTF-8",
    "tuple_type": "must be a list",
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "greater_than": "must be more than {gt:,}",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than": "must be less than {lt:,}",
    "less_than_equal": "must be at most {le:,}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "has the wrong form; allowed is {pattern}",
}

# Kinds of errors that validators of this program raise, in words of their own.
_OWN: Final = ("value_error", "assertion_error", "fault")

Context = Mapping[str, Any]

# Kinds of errors whose texts count.
_COUNTS: Final[Mapping[str, Callable[[Context], str]]] = {
    "string_too_short": lambda found: _least(found["min_length"], "character"),
    "string_too_long": lambda found: f"must have at most {counted(found['max_length'], 'character')}",
    "too_short": lambda found: _least(found["min_length"], "entry", "entries"),
    "too_long": lambda found: f"must have at most {counted(found['max_length'], 'entry', 'entries')}",
}


def fault_text(fault: ErrorDetails) -> str:
    """Return what is wrong with the value, to follow its name: such as "must be at least 1"."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _TEXTS:
        # The bounds of a number with a point are such numbers, too.
        bounds = {name: int(value) for name, value in context.items() if _is_whole(value)}
        return _TEXTS[kind].format_map({**context, **bounds})
    if kind in _COUNTS:
        return _COUNTS[kind](context)
    if kind in _OWN:
        return fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return "has a value that is not allowed"


def first_fault_text(error: ValidationError) -> str:
    """Return what is wrong with the first value that *error* is about, without the value's name."""
    return fault_text(error.errors(include_url=False)[0])


@contextmanager
def one_line() -> Iterator[None]:
    """Raise a ValueError that names the field and its fault in one line, in place of pydantic's error."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {fault_text(first)}" if where else fault_text(first)) from None


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _least(number: int, *noun: str) -> str:
    return "must not be empty" if number == 1 else f"must have at least {counted(number, *noun)}"
