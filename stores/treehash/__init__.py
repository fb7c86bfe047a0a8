"""
BLAKE3 in parts: several workers hash ranges of one object, and the results are merged into its address. And BLAKE3 of
many short objects at once.

    tree       the chaining value of a range; the address that the chaining values of all ranges make
    pieces     the addresses of many short pieces of bytes
    reference  BLAKE3's tree in pure Python: used where the compiled extension is missing, and by tests
    _blake3    the compiled extension, which is optional (hatch_build.py)
"""

from __future__ import annotations

from .pieces import digests
from .tree import is_fast, root, subtree

__all__ = ["digests", "is_fast", "root", "subtree"]
