"""Every JSON document that a command prints is compared with its schema in docs/schemas, unknown fields refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

FOLDER: Final = Path(__file__).parents[1] / "docs/schemas"

# The schemas of what each command prints with --json; `failures` prints one document a line.
_BY_COMMAND: Final = {
    **dict.fromkeys(["cancel", "continue", "pause", "plan", "priority", "status", "sync", "watch"], ("job",)),
    **dict.fromkeys(["heal", "pull", "push", "resume", "retry", "verify"], ("job", "submitted")),
    "diff": ("differences",),
    "dismiss": ("job", "dismissed"),
    "doctor": ("checks",),
    "failures": ("failure",),
    "jobs": ("jobs", "exported", "restored"),
    "limit": ("job-limits", "store-limits"),
    "ls": ("snapshots",),
    "mirrors": ("mirrors",),
    "notify": ("notifications", "test-notification"),
    "orphans": ("orphans",),
    "receipt": ("receipt",),
    "run": ("job", "submitted", "skipped"),
    "scrubs": ("scrubs",),
    "show": ("entries",),
    "size": ("size",),
    "submit": ("submitted",),
    "tag": ("names", "named"),
    "untag": ("named",),
    "version": ("version",),
}

_formats = FormatChecker()


@_formats.checks("date-time", raises=ValueError)
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).utcoffset() is not None


def schema(name: str) -> dict[str, Any]:
    """Return the schema *name* as its file has it."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.schema.json").read_text())
    return found


def names() -> list[str]:
    """Return the names of all schemas."""
    return sorted(path.name.removesuffix(".schema.json") for path in FOLDER.iterdir())


def schema_names() -> dict[str, tuple[str, ...]]:
    """Return the names of the schemas of what each command prints."""
    return dict(_BY_COMMAND)


def closed(found: Any) -> Any:
    """Return a schema that refuses unknown fields. The files allow them, because new fields may appear."""
    if isinstance(found, list):
        return [closed(one) for one in found]
    if not isinstance(found, dict):
        return found
    inner = {key: closed(value) for key, value in found.items()}
    return {"additionalProperties": False} | inner if "properties" in inner else inner


@cache
def validator(name: str) -> Draft202012Validator:
    """Return a validator of the closed schema *name*."""
    every = [(f"{one}.schema.json", Resource.from_contents(closed(schema(one)))) for one in names()]
    return Draft202012Validator(
        closed(schema(name)), registry=Registry().with_resources(every), format_checker=_formats
    )


def check(name: str, document: Any) -> None:
    """Fail unless *document* is as the schema *name* says."""
    faults = sorted(
        validator(name).iter_errors(document), key=lambda fault: list(map(str, fault.absolute_path))
    )
    assert not faults, f"{name}: " + "; ".join(f"{fault.json_path}: {fault.message}" for fault in faults)


def check_output(command: Sequence[str], code: int, out: str) -> None:
    """Fail if *command* printed JSON to its output *out* that its schema does not allow."""
    if code not in (0, 1) or not out.strip() or not _prints_json(command):
        return
    for name, document in _documents(_arguments(command), out):
        check(name, document)


def _arguments(command: Sequence[str]) -> list[str]:
    """Return what follows the name of the program: the command of snapferry and its arguments."""
    starts = [position + 1 for position, word in enumerate(command) if word == "snapferry"]
    return list(command[starts[0] :]) if starts else []


def _prints_json(command: Sequence[str]) -> bool:
    arguments = _arguments(command)
    return (
        bool(arguments) and ("--json" in arguments or arguments[0] == "receipt") and "--help" not in arguments
    )


def _documents(arguments: Sequence[str], out: str) -> Iterator[tuple[str, Any]]:
    possible = _BY_COMMAND[arguments[0]]
    if arguments[0] == "failures":
        for line in out.splitlines():
            yield possible[0], json.loads(line)
        return
    document = json.loads(out)
    yield _closest(possible, document), document


def _closest(possible: Sequence[str], document: Any) -> str:
    """Return the schema whose fields are most like those of *document*."""
    if isinstance(document, list):
        return next(name for name in possible if schema(name)["type"] == "array")
    objects = [name for name in possible if schema(name)["type"] == "object"]
    return min(objects, key=lambda name: len(schema(name)["properties"].keys() ^ document.keys()))
