"""A tree that contains the store that it is pushed to: the store is not a part of the snapshot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapferry.orchestrator.planning.trees.apart import check_apart, check_pushable, stores_in
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.walk import Walk
from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, StoreRef

from .fleet import Fleet
from .test_push import forget_plans


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "data").mkdir(parents=True)
    (root / "data" / "file").write_bytes(b"bytes")
    (root / "store" / ".objects" / "49d").mkdir(parents=True)
    (root / "store" / ".objects" / "49d" / "object").write_bytes(b"object")
    return root


def walked(tree: Path, destination: StoreRef, *, follow: bool = True) -> tuple[list[str], int]:
    walk = Walk(TreePlace(str(tree)), without=stores_in(destination), follow=follow)
    return [found.path for found in walk], walk.left_out.excluded


EXPECTED = ["./", "./data/", "./data/file"]


def test_the_store_is_left_out_by_whatever_link_it_is_reached(tree: Path) -> None:
    store = tree / "store"
    assert walked(tree, StoreRef(url=f"file://{store}")) == (EXPECTED, 1)
    (tree / "link").symlink_to("store")
    (tree / "absolute").symlink_to(store)
    (tree / "below").symlink_to("store/.objects/49d")
    (tree / "data" / "of an object").symlink_to("../below/object")
    outside = tree.parent / "outside"
    outside.symlink_to(tree / "below")
    (tree / "around").symlink_to(outside)

    assert walked(tree, StoreRef(url=f"file://{store}")) == (EXPECTED, 6)
    assert walked(tree, StoreRef(url=f"file://{tree / 'link'}")) == (EXPECTED, 6)
    assert walked(tree, StoreRef(url=f"file://{store}"), follow=False) == (EXPECTED, 1)
    # The root is a link to the tree.
    (tree.parent / "root").symlink_to(tree)
    assert walked(tree.parent / "root", StoreRef(url=f"file://{store}")) == (EXPECTED, 6)


def test_the_pool_of_objects_is_left_out_as_well(tree: Path) -> None:
    pool = tree / "data" / "pool"
    pool.mkdir()
    (pool / "file").touch()

    found = walked(tree, StoreRef(url=f"file://{tree}/store", objects_url=f"file://{pool}"))

    assert found == (EXPECTED, 2)


def test_other_stores_and_stores_elsewhere_are_files_as_all_others(tree: Path) -> None:
    for url in ("file:///nonexistent/store", "s3://bucket/store", f"file://{tree.parent}"):
        paths, excluded = walked(tree, StoreRef(url=url))
        assert "./store/.objects/49d/object" in paths
        assert excluded == 0


def test_a_push_into_its_own_tree_gives_the_same_snapshot_each_time(fleet: Fleet, tree: Path) -> None:
    """The store does not exist before the first push."""
    destination = StoreRef(url=f"file://{tree}/new")
    request = {"source": StoreRef(url=f"tree://{tree}"), "destination": destination, "everything": True}
    fleet.submit(action=Action.PUSH, **request)
    fleet.copy_all()
    first = fleet.status
    assert (first.state, first.objects_total) == (State.DONE, 2)

    # Another orchestrator walks again, while the store is there.
    fleet.submit(action=Action.PUSH, **request)
    fleet.drive()
    forget_plans()
    fleet.copy_all()

    assert (fleet.status.state, fleet.status.objects_total) == (State.DONE, 2)
    assert fleet.status.first_snapshot == first.first_snapshot
    manifests = [path for path in (tree / "new" / ".manifests").rglob("*") if path.is_file()]
    assert len(manifests) == 1


@pytest.mark.parametrize("below", ["", ".objects", ".objects/49d", ".manifests/8b1"])
@pytest.mark.parametrize("linked", [False, True])
def test_the_store_itself_and_its_parts_are_no_tree_to_push(tree: Path, below: str, linked: bool) -> None:
    store = tree / "store"
    (store / below).mkdir(parents=True, exist_ok=True)
    place = os.path.join(store, below)
    if linked:
        (tree.parent / "link").symlink_to(place)
        place = f"{tree.parent}/link"

    with pytest.raises(InvalidStoreURL):
        check_pushable(StoreRef(url=f"tree://{place}"), StoreRef(url=f"file://{store}"))


def test_a_tree_beside_the_objects_of_a_store_or_around_it_can_be_pushed(tree: Path) -> None:
    store = StoreRef(url=f"file://{tree}/store")
    (tree / "store" / "notes").mkdir()
    for place in (tree, tree / "data", tree / "store" / "notes", tree / "none"):
        check_pushable(StoreRef(url=f"tree://{place}"), store)
    check_pushable(StoreRef(url=f"tree://{tree}"), StoreRef(url="s3://bucket"))


def test_a_pull_around_its_store_is_refused_by_whatever_link_it_is_reached(tree: Path) -> None:
    (tree.parent / "link").symlink_to(tree)
    (tree.parent / "deep").symlink_to(tree / "store" / ".objects")
    for place in ("link", "link/store", "deep", "deep/49d/new", "tree"):
        with pytest.raises(InvalidStoreURL):
            check_apart(StoreRef(url=f"file://{tree}/store"), StoreRef(url=f"tree://{tree.parent}/{place}"))
    check_apart(StoreRef(url=f"file://{tree}/store"), StoreRef(url=f"tree://{tree}/data"))
