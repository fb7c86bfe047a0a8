"""The progress of a batch of files that are pushed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapferry.stores.access import TRUSTED, Right
from snapferry.stores.address import Address
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.workers.copying.transfer.push import Pushing

MIB = 1024 * 1024


class Seen:
    """Keeps the bytes that were settled after each report, and all bytes that were moved."""

    def __init__(self) -> None:
        self.settled: list[int] = []
        self.objects = self.moved = self.read = 0

    def begin(self, needed: list[Address]) -> None:
        self.begun = sum(self.settled)

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        assert size_bytes >= 0
        self.objects += objects
        self.moved += moved
        self.settled.append(size_bytes)

    def hashed(self, size_bytes: int) -> None:
        self.read += size_bytes


def push(root: Path, sizes: dict[str, int]) -> Seen:
    store = root / "store"
    source = open_store(f"tree://{root / 'tree'}", None, Right.READ, access=TRUSTED)
    destination = open_store(f"file://{store}", access=TRUSTED)
    destination.prepare()
    paths = {digest(path.encode()): path for path in sizes}
    planned = {file: sizes[path] for file, path in paths.items()}
    seen = Seen()
    outcome = Pushing(paths, True, lambda _: None).run(source, destination, planned, seen)
    assert not outcome.failures
    assert outcome.bytes_hashed == seen.read
    return seen


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def test_a_long_file_makes_progress_while_it_is_hashed_and_while_it_is_sent(tree: Path) -> None:
    """It shows half of the bytes when the file is hashed, not none; and all of them at the end, not more."""
    (tree / "long").write_bytes(os.urandom(40 * MIB))

    seen = push(tree.parent, {"./long": 40 * MIB})

    assert seen.begun == 20 * MIB
    assert (seen.objects, sum(seen.settled), seen.moved) == (1, 40 * MIB, 40 * MIB)
    assert max(seen.settled) < 2 * MIB
    assert seen.read == 40 * MIB

    # A second time it is present.
    again = push(tree.parent, {"./long": 40 * MIB})
    assert (again.objects, sum(again.settled), again.moved) == (1, 40 * MIB, 0)


def test_a_file_that_is_read_once_does_not_count_twice(tree: Path) -> None:
    data = os.urandom(5 * MIB)
    (tree / "one").write_bytes(data)
    (tree / "same").write_bytes(data)

    seen = push(tree.parent, {"./one": 5 * MIB, "./same": 5 * MIB})
    assert (seen.moved, seen.read) == (5 * MIB, 5 * MIB)

    again = push(tree.parent, {"./one": 5 * MIB, "./same": 5 * MIB})
    assert (again.moved, again.read) == (0, 10 * MIB)


@pytest.mark.parametrize("planned", [1, 3 * MIB, 100 * MIB])
def test_progress_ends_at_the_plan_whatever_the_files_turn_out_to_be(tree: Path, planned: int) -> None:
    sizes = {"./one": 5 * MIB + 1, "./two": 40 * MIB + 7, "./same": 40 * MIB + 7, "./short": 10}
    data = os.urandom(40 * MIB + 7)
    for path, size in sizes.items():
        (tree / path).write_bytes(data[:size])

    seen = push(tree.parent, dict.fromkeys(sizes, planned))

    assert (seen.objects, sum(seen.settled)) == (4, 4 * planned)
