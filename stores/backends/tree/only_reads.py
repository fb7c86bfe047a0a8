"""A backend that is read by its keys alone: it lists nothing, and nothing is written to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NoReturn

from snapferry.stores.backend import Backend, Listed
from snapferry.stores.errors import StoreFault
from snapferry.stores.streams import Upload


class OnlyReads(Backend):
    """Refuses everything but `check`, `open` and `fetch` with a `StoreFault`, whose detail is *refusal*."""

    refusal: ClassVar[str]

    def size(self, key: str) -> int | None:
        self._refuse()

    def write(self, key: str, data: bytes) -> None:
        self._refuse()

    def upload(self, key: str, size_hint: int) -> Upload:
        self._refuse()

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self._refuse()

    def delete(self, key: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreFault(self.label, "", self.refusal)
