"""Kill a push before every system call that changes a file system: no manifest is seen before its objects."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from snapferry.stores.access import TRUSTED, Right
from snapferry.stores.address import Address
from snapferry.stores.backends.tree.listing import list_tree
from snapferry.stores.backends.tree.manifest import build_manifest
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.walk import Walk
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.workers.copying.transfer.push import Pushing
from tests.faults.test_kill_points import (
    Quiet,
    assert_no_partial_object,
    die_at_system_call,
    run_and_die,
)
from tests.sample import assert_published_means_complete


def push(tree: Path, store: Path) -> None:
    """What a worker does with the only batch, and an orchestrator at the end."""
    source = open_store(f"tree://{tree}", None, Right.READ, access=TRUSTED)
    destination = open_store(f"file://{store}", access=TRUSTED)
    destination.prepare()
    listing = list_tree(Walk(TreePlace(str(tree))), "")
    files = list(listing.files())
    paths = {digest(found.path.encode()): found.path for found in files}
    reported: dict[Address, tuple[Address, int]] = {}
    sizes = {digest(found.path.encode()): found.length for found in files}
    outcome = Pushing(paths, True, reported.update).run(source, destination, sizes, Quiet())
    assert not outcome.failures
    records = [reported[file] for file in paths]
    digests = b"".join(bytes.fromhex(address) for address, _ in records)
    with build_manifest(listing.text, digests, [length for _, length in records]) as manifest:
        destination.publish(manifest)


def test_a_push_that_is_killed_anywhere_leaves_nothing_half_done(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for number in range(4):
        (tree / f"file {number}").write_bytes(b"%d" % number * 1000)
    (tree / "sub" / "large").write_bytes(b"large" * 200_000)
    (tree / "link").symlink_to("sub/large")

    def attempt(point: int, store: Path) -> None:
        die_at_system_call(point)
        push(tree, store)

    for point in range(1000):
        store = tmp_path / f"store {point}"
        killed = run_and_die(partial(attempt, point, store))
        seen = open_store(f"file://{store}", access=TRUSTED)
        if store.exists():
            assert_published_means_complete(seen)
            assert_no_partial_object(seen)
        push(tree, store)
        assert len(seen.list_manifest_ids()) == 1
        assert_published_means_complete(seen)
        if not killed:
            assert point > 30
            return
    raise AssertionError("the push never got through")
