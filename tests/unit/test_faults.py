"""What pydantic refuses is told in this program's words, wherever it comes from."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel, ValidationError

from snapferry.orchestrator.client.requests import Requests
from snapferry.orchestrator.recovery.document import Export, InvalidExport, parse_export
from snapferry.stores.access import TRUSTED
from snapferry.workers.faults import fault_text
from snapferry.workers.messages import JobSpec, StoreRef, TreeOptions
from snapferry.workers.messages.actions import MOST_PATTERNS
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .test_toml_faults import WHOLE

WRONG: Final[tuple[Any, ...]] = (
    None, True, -1, 1.5, 10**30, float("inf"), "", "\u0661", "x" * 20_000, [], ["x"], [""] * 20_000, {}, {"x": 1},
)  # fmt: skip

SPEC: Final = JobSpec.of(StoreRef(url="file:///a"), StoreRef(url="file:///b"), ["a" * 64])
EXPORT: Final = {
    "schema": "snapferry.jobs/1",
    "exported_at": 1.0,
    "jobs": [
        {
            "request": SPEC.model_dump(mode="json"),
            "state": "done",
            "submitted_at": 1.0,
            "counters": {"copied": 1},
            "snapshots": [{"id": "a" * 64, "state": "published"}],
        }
    ],
    "schedules": [{"kind": "mirror", "name": "nightly", "every": "6h", "since": 1.0}],
}
CONFIG: Final = {
    "stores": {"live": "file:///a"},
    "mirror": [{"name": "nightly", "from": "live", "to": "/b", "every": "6h", "delete": True, "max-delete": 1}],
    "scrub": [
        {
            "name": "live", "store": "live", "every": "6h", "share": "1/30", "limit-rate": "1MB", "max-bytes": 1,
            "max-time": "1h", "priority": "low", "queue": "one", "patience": "1h", "late-after": "1d",
        }
    ],
    "access": {"read": ["live"], "write": [], "link-local": False},
    "notify": {"events": ["failed"], "jobs": "all", "repeat": "1d", "wait": "30s", "fleet": "one", "urls-file": "/a"},
}  # fmt: skip


def changed(document: Any) -> Iterator[Any]:
    """Yield *document* with each of its values replaced by each of `WRONG`, and with a key more in each table."""
    yield from WRONG
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    if isinstance(document, dict):
        yield document | {"no_such_key": 1}
    for key, value in [*entries]:
        others = changed(value) if isinstance(value, dict | list) else iter(WRONG)
        for other in others:
            new = copy.copy(document)
            new[key] = other
            yield new


def assert_own_words(error: ValidationError) -> None:
    for fault in error.errors():
        text = fault_text(fault)
        own = fault["type"] in ("value_error", "fault")
        assert text != "has a value that is not allowed", fault["type"]
        assert own or fault["msg"] not in text
        assert "Value error" not in text
        assert text[:5] in ("must ", "has t", "is no", "is mi") or own, text


@pytest.mark.parametrize(
    ("model", "document"), [(Export, EXPORT), (Config, CONFIG), (TreeOptions, {"exclude": ["x"]})]
)
def test_no_wrong_value_is_told_in_the_words_of_pydantic(model: type[BaseModel], document: Any) -> None:
    model.model_validate(document)
    refused = 0
    for wrong in changed(document):
        try:
            model.model_validate(wrong)
        except ValidationError as error:
            refused += 1
            assert_own_words(error)

    assert refused > len(WRONG)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 5000, "must have at most 4,096 characters"),
        ("", "must not be empty"),
    ],
)
def test_lengths_are_counted(value: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TreeOptions(exclude=(value,))

    assert fault_text(caught.value.errors()[0]) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BATCH_OBJECTS", "many", "must be an integer, not 'many'"),
        ("BATCH_OBJECTS", "0", "must be at least 1, not '0'"),
        ("BATCH_OBJECTS", "10001", "must be at most 10,000, not '10001'"),
        ("GRACE", "soon", "must be a number, not 'soon'"),
        ("GRACE", "-1", "must be at least 0, not '-1'"),
        ("PATIENCE", "nan", "must be at most 2,592,000, not 'nan'"),
        ("GROUP_WRITE", "maybe", "must be true or false, not 'maybe'"),
        ("LOG_FORMAT", "XML", "must be 'auto', 'json' or 'text', not 'XML'"),
        ("FOLLOW_LINKS", "a", "'a' is not the absolute path of a directory below /"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line(name: str, value: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment({f"SNAPFERRY_{name}": value})

    assert str(caught.value) == f"SNAPFERRY_{name}: {said}"


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"broker_url"}))
def test_a_long_value_of_a_variable_does_not_fill_the_screen(name: str) -> None:
    for value in ("x" * 20_000, "9" * 5000, "\0" * 5000):
        try:
            Settings.from_environment({f"SNAPFERRY_{name.upper()}": value})
        except InvalidSettings as error:
            assert len(str(error)) < 400


def test_a_long_value_in_a_file_does_not_fill_the_screen(tmp_path: Path) -> None:
    (tmp_path / "snapferry.toml").write_text(
        f'[[mirror]]\nname = "a"\nfrom = "/a"\nto = "/b"\nevery = "{"x" * 20_000}"\n'
    )

    with pytest.raises(InvalidSettings) as refused:
        read_config(str(tmp_path / "snapferry.toml"))

    assert len(str(refused.value)) < 2000


def test_every_setting_is_refused_in_own_words() -> None:
    for name in Settings.model_fields:
        for value in ("x", "-1", "1.5", "9" * 30, "9" * 5000, " ", "inf"):
            try:
                Settings.model_validate({name: value})
            except ValidationError as error:
                assert_own_words(error)


def test_an_export_that_cannot_be_read_is_one_line() -> None:
    wrong = copy.deepcopy(EXPORT)
    wrong["jobs"][0]["request"]["batch_objects"] = 0  # type: ignore[index]  # a document of JSON

    with pytest.raises(InvalidExport) as caught:
        parse_export(json.dumps(wrong).encode())

    assert str(caught.value) == "jobs.0.request.batch_objects: must be at least 1"


def test_a_number_of_a_mirror_has_the_bounds_of_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "snapferry.toml"
    path.write_text(WHOLE.replace("max-delete = 10", f"max-delete = {10**30}"))

    with pytest.raises(InvalidSettings) as caught:
        read_config(str(path))

    assert str(caught.value).endswith("mirror.1.max-delete: must be at most 9,007,199,254,740,991")


def test_a_program_gets_one_line_that_names_the_option(tmp_path: Path) -> None:
    requests = Requests(Settings(), TRUSTED)
    (tmp_path / "tree").mkdir()
    tree, store = tmp_path / "tree", tmp_path / "store"

    with pytest.raises(ValueError, match=r"^patience: must be at least 0$"):
        requests.sync(tree, store, None, None, None, patience=-1)
    with pytest.raises(ValueError, match=r"^exclude\.0: must not be empty$"):
        requests.push(tree, store, "", [""], follow=True)
    with pytest.raises(ValueError, match=rf"^exclude: must have at most {MOST_PATTERNS:,} entries$"):
        requests.push(tree, store, "", ["x"] * (MOST_PATTERNS + 1), follow=True)
