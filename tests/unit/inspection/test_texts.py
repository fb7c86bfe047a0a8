"""What is in stores, in words and as JSON."""

from __future__ import annotations

import json

import pytest

from snapferry.orchestrator.cli.output.lines import print_document, print_lines, print_list
from snapferry.orchestrator.cli.run.look.diff import _reference
from snapferry.orchestrator.reporting.text.stores import orphans_text, tree_lines
from snapferry.stores.inspection.orphans import find_orphans

from .support import file, folder, put, store_of


def test_a_tree_is_indented_below_its_first_entry() -> None:
    entries = [folder("./a/b/"), folder("./a/b/c/"), file("./a/b/c/d"), file("./a/b/e ")]
    lines = [line[17:] for line in tree_lines(entries, exact=True)]

    assert lines == ["./a/b/", "  c/", "    d", '  "e "']


def test_a_very_deep_tree_is_indented_within_reason() -> None:
    (line,) = list(tree_lines([folder("./"), file("./" + "d/" * 400_000 + "x")], exact=True))[1:]

    assert line.endswith("  x")
    assert len(line) < 1000


@pytest.mark.parametrize("count", [0, 1, 2, 1200])
def test_lists_of_any_length_are_json(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [{"number": number} for number in range(count)]
    print_list(iter(documents))
    assert json.loads(capsys.readouterr().out) == documents
    print_document({"a": 1, "b": None}, "list", iter(documents))
    assert json.loads(capsys.readouterr().out) == {"a": 1, "b": None, "list": documents}
    print_lines(map(str, documents))
    assert capsys.readouterr().out.splitlines() == list(map(str, documents))


def test_a_list_that_ends_with_an_error_has_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    def failing():
        yield from range(1000)
        raise KeyError

    with pytest.raises(KeyError):
        print_list(failing())
    with pytest.raises(json.JSONDecodeError):
        json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "store", "snapshot"),
    [
        ("/srv/store", "/srv/store", ""),
        ("/srv/store@8b1f", "/srv/store", "8b1f"),
        ("/srv/store@nightly@", "/srv/store", "nightly@"),
        ("@latest", "", "latest"),
        ("@nightly@", "", "nightly@"),
        ("backup@latest", "backup", "latest"),
        ("/srv/a@b/", "/srv/a@b/", ""),
        ("/srv/a@b/store", "/srv/a@b/store", ""),
        ("/srv/a@b/store@8b1f", "/srv/a@b/store", "8b1f"),
        ("s3://b/p?endpoint_url=https://s3.example@8b1f", "s3://b/p?endpoint_url=https://s3.example", "8b1f"),
        ("@", "@", ""),
    ],
)
def test_a_snapshot_is_named_after_its_store(text: str, store: str, snapshot: str) -> None:
    assert _reference(text) == (store, snapshot)


def test_orphans_are_counted_in_words() -> None:
    store = store_of()
    with find_orphans(store, [store]) as none:
        assert orphans_text(none).startswith("no orphans")
    put(store, b"x")
    with find_orphans(store, [store]) as found:
        text = orphans_text(found)
    assert "1 orphan " in text
    assert "nothing was deleted" in text
    assert "No manifest was found" in text
