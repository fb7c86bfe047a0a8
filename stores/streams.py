"""Bytes on their way out of a store and into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self, runtime_checkable

Buffer = bytes | bytearray | memoryview

_LENT_BYTES: Final = 256 * 1024
# Of readings that ended: memory that was touched before costs half of what fresh memory does.
_buffers: Final[list[memoryview]] = []


class Reader(Protocol):
    """A stream of bytes that is read front to back."""

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, fewer only at the end of the stream, ``b""`` after it."""


class OpenReader(Reader, Protocol):
    """A reader that holds a file or a connection until its ``with`` block ends."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


@runtime_checkable
class FillsBuffers(Protocol):
    """A reader that can read into memory of its caller."""

    def read_into(self, buffer: memoryview, /) -> int:
        """Fill *buffer*, or a part of it, with the next bytes; return their number, 0 at the end."""


@runtime_checkable
class GivesPieces(Protocol):
    """A reader that has its bytes in memory, in pieces that it can give away."""

    def give(self) -> bytearray:
        """Return the next piece, which is the caller's now; an empty one at the end."""

    def take_back(self, piece: bytearray, /) -> None:
        """Use the memory of *piece* again. Optional. The caller must not use it any more."""


def lent(reader: Reader) -> Iterator[Buffer] | None:
    """
    Yield the bytes of *reader*, each piece until the next one. None where its `read` must be called.

    Raises what *reader* raises.
    """
    if isinstance(reader, GivesPieces):
        return _given(reader)
    return _filled(reader) if isinstance(reader, FillsBuffers) else None


def _given(reader: GivesPieces) -> Iterator[Buffer]:
    while piece := reader.give():
        yield piece
        reader.take_back(piece)


def _filled(reader: FillsBuffers) -> Iterator[Buffer]:
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = memoryview(bytearray(_LENT_BYTES))
    try:
        while length := reader.read_into(buffer):
            yield buffer[:length]
    finally:
        _buffers.append(buffer)


class Upload(ABC):
    """
    Bytes on their way to a key. Readers of the key do not see them before `commit`.

    Leaving the ``with`` block without a commit aborts the upload, with or without an exception.
    """

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """
        Append *chunk*.

        Raises `StoreError`. After an error the upload can only be aborted.
        """

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        """
        Write everything that *reader* has, by a method of the store that is faster than `read` and `write`.

        Call it before the first `read` and the first `write`. Returns False where there is no such method; then
        nothing was read or written. *show* is called in order with each piece of what `commit` makes visible. A
        piece is valid until *show* returns.

        Raises `StoreError` of either side, and what *show* raises. After an error the upload can only be aborted.
        """
        return False

    def finish(self) -> None:  # noqa: B027 - most uploads hold nothing that a commit does not need
        """
        Note that everything was written, so that what a commit does not need (a file descriptor) can be released.

        Optional before `commit`. Raises `StoreError`. After an error the upload can only be aborted.
        """

    def filled(self, data: bytes) -> Self:
        """
        Write all of *data* and `finish`; return the upload itself.

        Raises `StoreError`. After any exception the upload was aborted.
        """
        try:
            self.write(data)
            self.finish()
        except BaseException:
            self.abort()
            raise
        return self

    def only_over(self, version: str) -> None:  # noqa: B027 - most stores cannot tell versions apart
        """
        Let `commit` replace only *version* of what is under the key, as `features.Seen` has it; "" is nothing.

        Then `commit` raises `KeyChanged` where something else is there. A store that cannot compare replaces it.
        """

    @abstractmethod
    def commit(self) -> None:
        """
        Make everything that was written visible under the key in one step, and end the upload.

        After an error the key holds either its previous bytes or all of the new ones; which of them is unknown. A
        new upload may be made.
        """

    @abstractmethod
    def abort(self) -> None:
        """Discard everything that was written and leave no trace. Harmless after commit or abort. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
