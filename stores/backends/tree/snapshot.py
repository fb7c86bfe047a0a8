"""Read a tree in this process and return its manifest."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from typing import Final

from snapferry.stores.backend import Backend
from snapferry.stores.errors import FileChanged
from snapferry.stores.hashing import CHUNK_BYTES, HashingReader
from snapferry.stores.manifest.parse import Manifest

from .backend import TreeBackend
from .exclude import excluder
from .listing import list_tree
from .manifest import build_manifest
from .walk import Walk

# Pauses in seconds before a file that changed while it was read is read again.
PAUSES_S: Final = (0.05, 0.5, 2.0)

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
        paths = listing.paths()
        while some := list(islice(paths, _FILES_AT_ONCE)):
            for digest, length in pool.map(lambda path: context.copy().run(hash_file, tree, path), some):
                digests += digest
                lengths.append(length)
    return build_manifest(listing.text, digests, lengths)


def hash_file(tree: Backend, path: str) -> tuple[bytes, int]:
    """
    Return the digest and the length in bytes of the file *path* of *tree*.

    A file that changes while it is read is read again a few times. Raises `FileChanged` and what *tree* raises.
    """
    for pause in PAUSES_S:
        try:
            return _hash_once(tree, path)
        except FileChanged:
            time.sleep(pause)
    return _hash_once(tree, path)


def _hash_once(tree: Backend, path: str) -> tuple[bytes, int]:
    with tree.open(path) as opened:
        reader = HashingReader(opened)
        while len(reader.read(CHUNK_BYTES)) == CHUNK_BYTES:
            pass
    return bytes.fromhex(reader.hexdigest()), reader.length
