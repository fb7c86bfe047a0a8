"""Ask which of very many objects a store lacks, in pieces: several at once where the store pages its listings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeVar

from snapferry.stores.backend import Backend
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.pools.existence import PIECES_AT_ONCE, Namespace, addresses_of_a_piece, survey

# One piece after the other, where a backend spreads each over cores by itself.
LARGE_PIECE_ADDRESSES: Final = 50_000

_Piece = TypeVar("_Piece")
_Absent = TypeVar("_Absent")


def absent(backend: Backend, space: Namespace, addresses: AddressSet) -> AddressSet:
    """
    Return those of *addresses* that *backend* lacks in *space*, any number of them.

    They are asked for in pieces, several at once where the backend pages its listings. Raises what the backend raises.
    """
    found = AddressSet()
    piece_addresses = addresses_of_a_piece(len(addresses))
    if not backend.capabilities.pages_listings or len(addresses) <= piece_addresses:
        for piece in addresses.chunks(LARGE_PIECE_ADDRESSES):
            found.update(survey(backend, space, piece).needed)
    elif addresses.is_table:
        # It imports NumPy, as the table has done.
        from .digests import absent_digests

        digests = addresses.digest_chunks(piece_addresses)
        _ask_at_once(lambda piece: absent_digests(backend, space, piece), digests, found.add_digests)
    else:
        chunks = addresses.chunks(piece_addresses)
        _ask_at_once(lambda piece: survey(backend, space, piece).needed, chunks, found.update)
    return found


def _ask_at_once(
    ask: Callable[[_Piece], _Absent], pieces: Iterable[_Piece], take: Callable[[_Absent], None]
) -> None:
    """Call *ask* for each of *pieces*, several at once, and *take* with each answer, in order."""
    with ThreadPoolExecutor(PIECES_AT_ONCE) as pool:
        asked: deque[Future[_Absent]] = deque()
        for piece in pieces:
            if len(asked) == PIECES_AT_ONCE:
                take(asked.popleft().result())
            asked.append(pool.submit(copy_context().run, ask, piece))
        for answer in asked:
            take(answer.result())
