"""The schemas in docs/schemas: each is a schema, and has the fields of docs/json.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from snapferry.orchestrator.cli.group import COMMANDS, cli
from tests.json_documents import check, check_output, closed, names, schema, schema_names, validator

PAGE = (Path(__file__).parents[2] / "docs/json.md").read_text()

# Keys of maps, which are no fields.
OPERATIONS = {"GetObject", "ListObjectsV2", "PutObject"}

# The section of docs/json.md that describes the fields of each schema.
SECTIONS = {
    "job": "A job",
    "estimate": "An estimate",
    "mirrors": "A mirror",
    "scrubs": "A scrub",
    "notifications": "Notifications",
    "names": "A name",
    "failure": "A failed object",
    "receipt": "A receipt",
    "checks": "The doctor",
}


def block_fields(title: str) -> set[str]:
    """Return the names of the fields in the code blocks of a section."""
    (section,) = re.findall(rf"^##+ {title}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    code = "".join(re.findall(r"^    .*\n", section, re.MULTILINE))
    return set(re.findall(r'"(\w+)":', re.sub(r'": "[^"]*"', '": ""', code)))


def fields(found: Any) -> Iterator[str]:
    """Yield the names of all fields that a schema itself has."""
    if isinstance(found, dict):
        yield from found.get("properties", {})
        for value in found.values():
            yield from fields(value)
    elif isinstance(found, list):
        for value in found:
            yield from fields(value)


def values(found: Any) -> Iterator[str]:
    """Yield the values that fields of a schema can have."""
    if isinstance(found, dict):
        yield from (value for value in found.get("enum", ()) if value)
        for value in found.values():
            yield from values(value)
    elif isinstance(found, list):
        for value in found:
            yield from values(value)


@pytest.mark.parametrize("name", names())
def test_each_file_is_a_schema_that_says_its_name_and_meaning(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$id"] == f"{name}.schema.json"
    assert schema(name)["title"]


@pytest.mark.parametrize("name", names())
def test_each_reference_names_a_file(name: str) -> None:
    for reference in re.findall(r"'\$ref': '([^']*)'", str(schema(name))):
        assert reference.removesuffix(".schema.json") in names()


@pytest.mark.parametrize(("name", "title"), SECTIONS.items())
def test_the_page_and_the_schema_have_the_same_fields(name: str, title: str) -> None:
    inner = set(fields(schema(name)))
    documented = block_fields(title)
    assert {
        field for field in inner - documented if f'"{field}"' not in PAGE and f"`{field}`" not in PAGE
    } == set()
    # What a section shows of another document, it need not describe again.
    others = {field for other in names() for field in fields(schema(other))}
    assert documented - inner - others - set(values(schema(name))) - OPERATIONS == set()


def test_every_command_that_prints_json_has_a_schema() -> None:
    context = click.Context(cli)
    printing = {
        name
        for name in COMMANDS
        for command in [cli.get_command(context, name)]
        if command and any("--json" in parameter.opts for parameter in command.params)
    }
    assert printing - schema_names().keys() == set()
    assert set().union(*schema_names().values()) <= set(names())


def test_every_schema_is_linked_on_the_page() -> None:
    assert set(re.findall(r"\(schemas/([a-z-]+)\.schema\.json\)", PAGE)) == set(names())


def test_the_check_refuses_missing_unknown_and_wrong_fields() -> None:
    right = {"job": "c1d77493-114b-4416-8d61-3b03bff54357"}
    check("submitted", right)
    for wrong in ({}, right | {"more": 1}, {"job": 7}, {"job": "no id"}):
        with pytest.raises(AssertionError, match="submitted: "):
            check("submitted", wrong)
    with pytest.raises(AssertionError, match="date"):
        check("orphans", dict.fromkeys(schema("orphans")["required"], 0) | {"youngest": "2026-01-30 12:00"})
    command = ["python", "-m", "snapferry", "submit", "--json"]
    check_output(command, 0, '{"job": "c1d77493-114b-4416-8d61-3b03bff54357"}')
    with pytest.raises(AssertionError):
        check_output(command, 0, '{"job": null}')


def test_the_files_allow_fields_that_are_not_known_yet() -> None:
    document = {"job": "c1d77493-114b-4416-8d61-3b03bff54357", "new": 1}
    Draft202012Validator(schema("submitted")).validate(document)
    with pytest.raises(ValidationError):
        Draft202012Validator(closed(schema("submitted"))).validate(document)
    assert validator("jobs").is_valid([])
