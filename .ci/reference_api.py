"""The page docs/api.md, from the docstrings and signatures of the Python API. reference.py writes it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, is_typeddict

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from snapferry.orchestrator import client
from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.reporting.failures import DeadLetter

HEAD = """\
# Python API

All classes of the Python API. [Use snapferry from Python](python.md) shows how to use them. `make reference` writes
this page from the code.

`from snapferry import Client, Job, JobFailed`; the options, results and errors are in `snapferry.orchestrator.client`.

| type | is |
|---|---|
| `Place` | a store: a URL, an absolute path, or a name in `snapferry.toml`; `path` is a directory |
| `Places` | one or several stores |
| `Patterns` | one or several regular expressions |
| `Ids` | snapshots: one or several ids, first digits of ids, or names such as `nightly@`; None for all of the store |
| `Unpack[…]` | keyword arguments, as the class of that name lists them |
| `JobSpec` | the request that the other methods build, for programs that need to keep or send it |
"""

PARTS: dict[str, list[type]] = {
    "Submit and follow": [client.Client, client.Job],
    "Options": [
        client.JobOptions,
        client.SyncOptions,
        client.Limits,
        client.Prune,
        client.Budget,
        client.Order,
        client.Priority,
        client.Settings,
    ],
    "Results": [client.JobStatus, client.State, SnapshotRow, DeadLetter],
    "Errors": [
        client.JobFailed,
        client.JobRefused,
        client.UnknownJob,
        client.BrokerUnavailable,
        client.InvalidSettings,
        client.StoreError,
        client.InvalidStoreURL,
    ],
}

FUNCTIONS: dict[str, list[Callable[..., Any]]] = {"Results": [client.status_line]}

# Settings are on a page of their own.
WITHOUT_FIELDS = {client.Settings: "[Configure](configure.md#settings) has all settings."}
WIDTH = 100


class _Text:
    """An annotation that is shown as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def page() -> str:
    """Return the page."""
    listed = {found.__name__ for parts in (PARTS, FUNCTIONS) for part in parts.values() for found in part}
    missing = set(client.__all__) - listed
    assert not missing, f"not in PARTS of .ci/reference_api.py: {missing}"
    return "\n".join([HEAD, *_parts()]).rstrip() + "\n"


def _parts() -> Iterator[str]:
    for part, classes in PARTS.items():
        yield f"## {part}\n"
        for found in classes:
            yield from _class(found)
        for function in FUNCTIONS.get(part, ()):
            yield f"### {function.__name__}\n"
            yield from _signature(function.__name__, function, bound=False)
            yield _text(function)


def _class(found: type) -> Iterator[str]:
    bases = [base.__name__ for base in found.__bases__ if base.__module__.startswith("snapferry.")]
    bases += [base.__name__ for base in getattr(found, "__orig_bases__", ()) if is_typeddict(base)]
    yield f"### {found.__name__}\n"
    if issubclass(found, Exception) and bases:
        yield f"A kind of `{bases[0]}`.\n"
    elif is_typeddict(found) and bases:
        yield f"Takes the options of `{bases[0]}` as well.\n"
    if found in (client.Client, client.Job):
        yield from _signature(found.__name__, found.__init__)  # type: ignore[misc]
    yield _text(found)
    if found in WITHOUT_FIELDS:
        yield f"{WITHOUT_FIELDS[found]}\n"
    elif issubclass(found, Enum):
        yield ", ".join(f"`{member.value}`" for member in found) + "\n"
    else:
        yield from _fields(found)
        yield from _methods(found)


def _fields(found: type) -> Iterator[str]:
    rows = list(_field_rows(found))
    if rows:
        yield "| field | type | default |"
        yield "|---|---|---|"
        yield from (f"| `{name}` | `{kind}` | {default} |" for name, kind, default in rows)
        yield ""


def _field_rows(found: type) -> Iterator[tuple[str, str, str]]:
    kinds = {name: _kind(kind) for name, kind in getattr(found, "__annotations__", {}).items()}
    for name, kind in kinds.items():
        default: Any = None
        if issubclass(found, BaseModel):
            field = found.model_fields[name]
            default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
            shown = "" if default is PydanticUndefined else f"`{default!r}`"
        elif dataclasses.is_dataclass(found):
            (default,) = [field.default for field in dataclasses.fields(found) if field.name == name]
            shown = "" if default is dataclasses.MISSING else f"`{_plain(default)}`"
        elif is_typeddict(found):
            shown = ""
        else:
            continue
        yield name, kind, shown


def _plain(value: Any) -> str:
    return repr(value.value) if isinstance(value, Enum) else repr(value)


def _kind(kind: Any) -> str:
    """Return an annotation as text, without the bounds that belong to messages."""
    text = kind if isinstance(kind, str) else getattr(kind, "__forward_arg__", str(kind))
    text = re.sub(r"Annotated\[([^,\[\]]+(?:\[[^\]]*\])?), .*\]$", r"\1", text)
    return text.replace("_Amount", "Decimal").replace(" | ", " or ")


def _methods(found: type) -> Iterator[str]:
    for name, member in vars(found).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property) and member.fget is not None:
            yield f"#### {found.__name__}.{name} (property)\n"
            yield _text(member.fget)
        elif inspect.isfunction(member):
            yield f"#### {found.__name__}.{name}\n"
            yield from _signature(f"{found.__name__.lower()}.{name}", member)
            yield _text(member)


def _signature(name: str, function: Any, *, bound: bool = True) -> Iterator[str]:
    signature = inspect.signature(function)
    shown = [
        parameter.replace(annotation=_Text(parameter.annotation))
        if parameter.annotation is not inspect.Parameter.empty
        else parameter
        for parameter in list(signature.parameters.values())[bound:]
    ]
    result = signature.return_annotation
    end = "" if result in (inspect.Signature.empty, "None") else f" -> {result}"
    line = f"{name}{inspect.Signature(shown)}{end}"
    if len(line) <= WIDTH:
        yield f"    {line}\n"
        return
    marked = [str(parameter) for parameter in shown]
    first = next((at for at, each in enumerate(shown) if each.kind is inspect.Parameter.KEYWORD_ONLY), None)
    if first is not None:
        marked.insert(first, "*")
    yield f"    {name}("
    yield from (f"        {each}," for each in marked)
    yield f"    ){end}\n"


def _text(found: Any) -> str:
    """Return the docstring of *found* as Markdown."""
    text = inspect.cleandoc(found.__doc__ or "")
    assert text, f"{found} has no docstring"
    return text.replace("``", "`") + "\n"
