"""A fault in snapferry.toml is named with its line, its key, and what was probably meant."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings
from snapferry.workers.settings.toml_faults import line_of

WHOLE = """\
# Stores of the example.
[stores]
live = "s3://live/store"
backup = "file:///srv/backup"    # a directory

[stores.archive]
url = "s3://archive/store"
storage-class = "STANDARD_IA"
tags = { team = "backup" }

[[mirror]]
name = "nightly"
from = "live"
to = "backup"
every = "6h"
delete = true
max-delete = 10
priority = "low"

[[mirror]]
name = "weekly"
from = "live"
to = "archive"
every = "30 3 * * 0"

[[scrub]]
name = "backup"
store = "backup"
every = "1d"
share = "1/30"

[access]
read = [
    "live",
    "backup",
]
write = ["backup"]
link-local = false
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max-delete", "max_delete", "line 17: mirror.1.max_delete: unknown key; did you mean 'max-delete'?"),
        ('to = "archive"', 'too = "archive"', "line 23: mirror.2.too: unknown key; did you mean 'to'? (and 1 more)"),
        ("share", "shares", "line 30: scrub.1.shares: unknown key; did you mean 'share'? (and 1 more)"),
        ("link-local", "linklocal", "line 38: access.linklocal: unknown key; did you mean 'link-local'?"),
        ("[access]", "[acces]", "line 32: acces: unknown key; did you mean 'access'?"),
        ("[[scrub]]", "[[scrubs]]", "line 26: scrubs: unknown key; did you mean 'scrub'?"),
        ("[[scrub]]", "[scrub]", "line 26: scrub: must be a list of tables. Write [[scrub]] instead of [scrub]"),
        ("[access]", "[[access]]", "line 32: access: must be a table. Write [access] instead of [[access]]"),
        ("[stores]\n", "zzzzz = 1\n[stores]\n", "line 2: zzzzz: unknown key; known keys: stores, "),
        ("[stores]\n", "s3-max-requests = 1\n[stores]\n", "s3-max-requests: is not a key of this file. Set the"),
        ("[stores]\n", "broker = ''\n[stores]\n", "line 2: broker: is not a key of this file. Set the variable"),
        ("storage-class", "storage-klass", "line 6: stores.archive: there is no setting 'storage-klass'; did you"),
        ('"STANDARD_IA"', "1", "line 6: stores.archive: storage-class must be a string"),
        ('priority = "low"', 'priority = "hihg"', "line 18: mirror.1.priority: must be 'high', 'normal' or 'low'; did"),
        ("delete = true", 'delete = "maybe"', "line 16: mirror.1.delete: must be true or false"),
        ("max-delete = 10", "max-delete = -1", "line 17: mirror.1.max-delete: must be at least 0"),
        ("max-delete = 10", "max-delete = []", "line 17: mirror.1.max-delete: must be an integer"),
        ('every = "1d"', "every = 1", "line 29: scrub.1.every: must be a string, in quotes"),
        ('every = "1d"', 'every = "often"', "line 29: scrub.1.every: 'often' is neither an interval"),
        ('store = "backup"', 'store = "bakcup"', "line 28: scrub.1.store: no store is named 'bakcup'; did you mean"),
        ('from = "live"', 'from = "/live"\nfrom-objects = 1', "line 14: mirror.1.from-objects: unknown key"),
        ('to = "archive"', 'to = "ftp://x/y"', "line 23: mirror.2.to: ftp://x/y: is not a store URL"),
        ('name = "weekly"', 'name = "nightly"', "line 21: mirror.2.name: more than one mirror is named 'nightly'"),
        ('name = "weekly"', 'name = "The weekly"', "line 21: mirror.2.name: has the wrong form; allowed is "),
        ('    "live",\n', '    "lvie",\n', "line 33: access.read: no store is named 'lvie'; did you mean 'live'?"),
        ('write = ["backup"]', 'write = ["x://y"]', "line 37: access.write: x://y: "),
        ('write = ["backup"]', 'write = "backup"', "line 37: access.write: must be a list, in square brackets"),
        ("live = ", "live = s3", "is not TOML: Invalid value (at line 3"),
    ],
)  # fmt: skip
def test_a_fault_has_line_key_and_suggestion(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert WHOLE.count(old) >= 1
    path = tmp_path / "snapferry.toml"
    path.write_text(
        WHOLE.replace(old, new, 1) if old != "live = " else WHOLE.replace('live = "', "live = s3", 1)
    )

    with pytest.raises(InvalidSettings) as caught:
        read_config(str(path))

    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_example_itself_has_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "snapferry.toml"
    path.write_text(WHOLE)

    assert len(read_config(str(path)).mirror) == 2


def test_every_key_of_every_table_is_suggested_if_it_is_misspelt(tmp_path: Path) -> None:
    tables = {"access": "[access]", "mirror": "[[mirror]]", "scrub": "[[scrub]]"}
    others = set(Config.model_fields) - {"stores", *tables}
    tables |= {name: f"[{name}]" for name in others}
    path = tmp_path / "snapferry.toml"
    for name, header in tables.items():
        path.write_text(f"[stores]\n\n{header}\nxx-no-such-key-xx = 1\n")
        with pytest.raises(InvalidSettings, match=rf"toml, line 4: {name}\..*: unknown key; known keys: "):
            read_config(str(path))


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        ("a = 1\nb.c = 2\n", ("b", "c"), 2),
        ('"a b" = 1\n', ("a b",), 1),
        ("a = '''\nb = 1\n'''\nb = 2\n", ("b",), 4),
        ('a = """\\"""" # "\nb = 2\n', ("b",), 2),
        ("a = [\n  1, # ]\n  2,\n]\nb = 2\n", ("b",), 5),
        ('a = "#"\nb = 2\n', ("b",), 2),
        ("a = { b = 1 }\n", ("a", "b"), 1),
        ("[x.y]\nz = 1\n[[l]]\n[[l]]\n[l.m]\nn = 1\n", ("l", 1, "m", "n"), 6),
        ("[[l]]\na = 1\n[[l.m]]\nb = 1\n[[l.m]]\nb = 2\n", ("l", 0, "m", 1, "b"), 6),
        ("a = 1\n", ("zzz",), None),
        ("", (), None),
    ],
)
def test_the_line_of_a_key_is_that_where_it_begins(
    text: str, place: tuple[str | int, ...], line: int | None
) -> None:
    tomllib.loads(text)
    assert line_of(text, place) == line


@given(st.text(alphabet="ab=[]{}\"'#.\n\\ 1,", max_size=60), st.sampled_from([("a",), ("a", 0, "b"), ()]))
def test_any_text_has_a_line_or_none(text: str, place: Any) -> None:
    line = line_of(text, place)

    assert line is None or 1 <= line <= text.count("\n") + 1
