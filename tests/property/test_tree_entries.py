"""A tree is made of a manifest only if every path in it is a path of the tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.errors import ManifestSyntaxError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.manifest.tree_entries import tree_entries
from snapferry.stores.manifest.tree_lines import LONGEST_NAME

NAMES = ["a", "b", "a-b", ".a", "...", "..a", "é", "x" * LONGEST_NAME, " ", "a\r"]
NO_NAMES = ["", ".", "..", "a\0", "x" * (LONGEST_NAME + 1), "é" * 128]

parts = st.lists(st.sampled_from(NAMES * 3 + NO_NAMES), min_size=1, max_size=3)


def is_right(path: str) -> bool:
    return path.startswith("./") and all(
        part not in ("", ".", "..") and "\0" not in part and len(part.encode()) <= LONGEST_NAME
        for part in path[2:].split("/")
    )


@given(
    files=st.lists(st.tuples(st.sampled_from(["./"] * 9 + ["", "/", "../"]), parts), min_size=1, max_size=6),
    mode=st.sampled_from(["644", "644", "7777", "0", "8", "10000", "rw"]),
)
def test_exactly_the_files_that_have_a_path_below_the_root_become_entries(
    files: list[tuple[str, list[str]]], mode: str
) -> None:
    paths = sorted({root + "/".join(path) for root, path in files} - {""})
    text = render([Entry("F", mode, digest(path.encode()), len(path), path) for path in paths])
    nested = any(other.startswith(f"{path}/") for path in paths for other in paths)
    right = all(map(is_right, paths)) and not nested and set(mode) <= set("01234567") and len(mode) <= 4

    with Manifest.from_bytes(snapshot_id(text), text) as manifest:
        if not right:
            with pytest.raises(ManifestSyntaxError):
                list(tree_entries(manifest))
            return
        found = list(tree_entries(manifest))

    assert [(f"./{entry.path}", entry.mode, entry.size, entry.address) for entry in found] == [
        (path, int(mode, 8), len(path), digest(path.encode())) for path in paths
    ]
