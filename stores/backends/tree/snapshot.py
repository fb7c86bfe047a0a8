"""Read a tree in this process and return its manifest."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from typing import Final

from snapferry.stores.manifest.parse import Manifest

from .backend import TreeBackend
from .exclude import excluder
from .listing import list_tree
from .manifest import build_manifest
from .reading import read_file
from .walk import Walk

_FILES_AT_ONCE: Final = 1000


def read_tree(
    tree: TreeBackend, *, exclude: Iterable[str] = (), walk_jobs: int = 1, jobs: int = 1
) -> Manifest:
    """
    Return the manifest of *tree*, to be used in a ``with`` block; `StreamStore.push` brings it to a store.

    Paths that match a pattern of *exclude* are left out. *walk_jobs* directories are listed at once, and *jobs* files
    hashed. Raises `InvalidPattern`, what `Walk` raises, and for a file `AccessDenied`, `KeyMissing` if it was removed
    meanwhile, and `FileChanged` if it does not hold still. May be repeated.
    """
    walk = Walk(tree.place, follow=tree.follow, excluded=excluder(exclude), jobs=walk_jobs)
    listing = list_tree(walk, tree.label)
    digests, lengths = bytearray(), array("Q")
    context = copy_context()
    with ThreadPoolExecutor(jobs, thread_name_prefix="hash") as pool:
        # Only one thread at a time can enter a context.
        paths = (found.path for found in listing.files())
        while some := list(islice(paths, _FILES_AT_ONCE)):
            for found in pool.map(lambda path: context.copy().run(read_file, tree, path, keep=False), some):
                digests += bytes.fromhex(found.address)
                lengths.append(found.length)
    return build_manifest(listing.text, digests, lengths)
