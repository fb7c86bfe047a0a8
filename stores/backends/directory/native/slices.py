"""
Begin and show many uploads: by the extension, and one by one those that it leaves out.

A function for many, which the caller gives, handles the first of its items: all of them, fewer or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.streams import Upload

from .extension import FILES_AT_ONCE

_Place = TypeVar("_Place")


class Shown(Protocol):
    """An upload that `show` makes visible. Its bytes are on disk."""

    def show(self) -> None: ...


_Shown = TypeVar("_Shown", bound=Shown)


def upload_all(
    places: Sequence[_Place],
    data: Sequence[bytes],
    begin_many: Callable[[Sequence[_Place], Sequence[bytes]], Sequence[Upload]],
    begin: Callable[[_Place, bytes], Upload],
) -> list[Upload]:
    """
    Begin an upload to each of *places*, write its *data*, and finish it.

    After a `StoreError`, return those before. After any other error, they are aborted.
    """
    uploads: list[Upload] = []
    try:
        while (first := len(uploads)) < len(places):
            checkpoint()
            end = first + FILES_AT_ONCE
            uploads += begin_many(places[first:end], data[first:end])
            for place, each in zip(places[len(uploads) : end], data[len(uploads) : end], strict=True):
                uploads.append(begin(place, each))
    except StoreError:
        # The caller begins this one again, for its error.
        return uploads
    except BaseException:
        for upload in uploads:
            upload.abort()
        raise
    return uploads


def show_all(uploads: Iterable[_Shown], show_many: Callable[[Sequence[_Shown]], int]) -> None:
    """Make *uploads* visible. Raises the first `StoreError`, after all of them were tried."""
    failed: StoreError | None = None
    left = list(uploads)
    while left:
        del left[: show_many(left)]
        try:
            for upload in left[:1]:
                upload.show()
        except StoreError as error:
            failed = failed or error
        del left[:1]
    if failed is not None:
        raise failed
