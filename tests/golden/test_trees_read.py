"""The manifest that we make of a tree is that of snapdir, byte by byte, and so is the store that we push it to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.snapshot import read_tree
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from tests.golden.conftest import Snapshot
from tests.golden.files import contents
from tests.golden.odd_trees import ODD_TREES, PATTERNS, random_tree
from tests.golden.oracle import Oracle
from tests.golden.trees import TREES
from tests.opening import open_store

Question = tuple[Path, bool, Sequence[str]]

RANDOM_TREES = 40


def ours(tree: Path, no_follow: bool = False, exclude: Sequence[str] = (), walk_jobs: int = 1) -> str | None:
    """Return our manifest of *tree* as `Oracle.manifests` returns that of snapdir."""
    backend = TreeBackend(TreePlace(str(tree)), follow=not no_follow)
    try:
        with read_tree(backend, exclude=exclude, walk_jobs=walk_jobs, jobs=2) as manifest:
            text = manifest.open().read(manifest.length)
            assert digest(text) == manifest.id
            return text.decode().removesuffix("\n")
    except StoreError:
        return None


@pytest.fixture(scope="module")
def odd_trees(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All trees that have a name, and some random ones."""
    root = tmp_path_factory.mktemp("trees")
    for name, make in (TREES | ODD_TREES).items():
        (root / name).mkdir()
        make(root / name)
    (root / "link").symlink_to("nested")
    for seed in range(RANDOM_TREES):
        random_tree(root / f"random {seed}", seed)
    return sorted(root.iterdir())


def test_manifests_are_those_of_snapdir(odd_trees: list[Path], session_oracle: Oracle) -> None:
    questions: list[Question] = [(tree, no_follow, ()) for tree in odd_trees for no_follow in (False, True)]
    for number, tree in enumerate(odd_trees):
        questions.append((tree, bool(number % 2), [PATTERNS[number % len(PATTERNS)]]))
        questions.append((tree, False, [PATTERNS[number % len(PATTERNS)], PATTERNS[number % 5]]))

    theirs = session_oracle.manifests(questions)

    assert None not in theirs
    for number, (question, expected) in enumerate(zip(questions, theirs, strict=True)):
        assert ours(*question, walk_jobs=1 + 3 * (number % 2)) == expected, question


def test_a_link_to_the_directory_above_it_is_followed_as_often_as_snapdir_follows_it(
    tmp_path: Path, session_oracle: Oracle
) -> None:
    for name, target in (("here", "."), ("sub/up", "..")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)
        (tmp_path / "file").write_bytes(b"x")
        [theirs] = session_oracle.manifests([(tmp_path, False, ())])
        assert theirs is not None
        assert theirs.count("\n") > 40
        assert ours(tmp_path) == theirs
        (tmp_path / name).unlink()


def test_both_refuse_names_that_are_not_utf8_and_links_through_a_file(
    tmp_path: Path, session_oracle: Oracle
) -> None:
    for name in ("bytes", "special", "excluded", "through"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    (tmp_path / "bytes" / "caf\udce9").write_bytes(b"x")
    (tmp_path / "special" / "caf\udce9").symlink_to("nowhere")
    (tmp_path / "excluded" / "caf\udce9").write_bytes(b"x")
    (tmp_path / "through" / "link").symlink_to("file/below")
    questions: list[Question] = [
        (tmp_path / "bytes", False, ()),
        (tmp_path / "special", True, ()),
        (tmp_path / "excluded", False, ["caf"]),
        (tmp_path / "through", False, ()),
        (tmp_path / "not there", False, ()),
        (tmp_path / "bytes" / "file", False, ()),
    ]

    assert session_oracle.manifests(questions) == [None] * len(questions)
    assert [ours(*question) for question in questions] == [None] * len(questions)


def test_classes_of_characters_are_those_of_snapdir(tmp_path: Path, session_oracle: Oracle) -> None:
    # RE2 does not know the letters that Unicode 16 added.
    skipped = {0, ord("\n"), ord("\r"), ord("."), ord("/"), 0x897, 0x1C89, 0x1C8A}
    letters_in_squares = [0x1F12F, 0x1F130, 0x1F149, 0x1F14A, 0x1F169, 0x1F16F, 0x1F170, 0x1F189, 0x1F18A]
    for code in [*range(0x3000), *letters_in_squares]:
        if code not in skipped:
            (tmp_path / chr(code)).touch()
    patterns = [rf"/{one}$" for one in (r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", r"[\w\d\s]", r"[^\w]")]

    theirs = session_oracle.manifests([(tmp_path, False, [pattern]) for pattern in patterns])

    for pattern, expected in zip(patterns, theirs, strict=True):
        assert expected is not None
        assert ours(tmp_path, exclude=[pattern]) == expected, pattern


@pytest.mark.parametrize(
    "pattern", ["(", "(?=a)", r"(a)\1", "[a", "a**", r"\07", "{", "a{,2}", r"\p{^L}", r"[\0]"]
)
def test_both_refuse_what_is_no_pattern(pattern: str, tmp_path: Path, session_oracle: Oracle) -> None:
    if pattern != "a**":
        assert session_oracle.manifests([(tmp_path, False, [pattern])]) == [None]
        assert ours(tmp_path, exclude=[pattern]) is None


def test_a_pushed_store_is_that_of_snapdir(snapshot: Snapshot, tmp_path: Path) -> None:
    _push(snapshot.tree, tmp_path / "ours")

    assert _bytes_in(tmp_path / "ours") == _bytes_in(snapshot.store)


@pytest.mark.parametrize("name", ODD_TREES)
def test_a_pushed_store_of_an_odd_tree_is_that_of_snapdir(name: str, oracle: Oracle, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    ODD_TREES[name](tree)
    snapshot_id = oracle.push(tree, f"file://{tmp_path}/theirs")

    assert _push(tree, tmp_path / "ours") == snapshot_id
    assert _bytes_in(tmp_path / "ours") == _bytes_in(tmp_path / "theirs")
    assert oracle.verify(snapshot_id, f"file://{tmp_path}/ours")


def test_a_store_inside_the_tree_is_part_of_it_as_for_snapdir(oracle: Oracle, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"file")
    first = oracle.push(tree, f"file://{tree}/store")
    shutil.copytree(tree, tmp_path / "copy")

    [theirs] = oracle.manifests([(tree, False, ())])
    assert theirs is not None
    assert first in theirs.replace("/", "")
    assert ours(tree) == theirs
    _push(tmp_path / "copy", tmp_path / "copy" / "store")


def _bytes_in(store: Path) -> dict[str, bytes | None]:
    """Return relative path -> bytes. Modes differ: snapdir gives an object that of its file."""
    return {path: data for path, (_, data) in contents(store).items()}


def _push(tree: Path, store: Path) -> str:
    backend = TreeBackend(TreePlace(str(tree)))
    with read_tree(backend) as manifest:
        open_store(f"file://{store}").push(manifest, backend)
        return manifest.id
