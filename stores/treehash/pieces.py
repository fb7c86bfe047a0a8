"""The addresses of many short pieces of bytes, in one call of the compiled extension if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import cast

from blake3 import blake3

from ..address import Address


def digests(pieces: Sequence[bytes | None]) -> list[Address | None]:
    """Return the address of each of *pieces*, and None for None. Releases the interpreter lock if it is compiled."""
    return cast(list[Address | None], _digests(pieces))


def one_by_one(pieces: Sequence[bytes | None], /) -> list[str | None]:
    """Return what `digests` does, where the extension is missing."""
    return [None if piece is None else blake3(piece).hexdigest() for piece in pieces]


_digests = one_by_one
with suppress(ImportError):
    # By its name, as in `tree`.
    _digests = import_module("._blake3", __package__).digests
