"""How many requests the operations of a store take, by its backends' own counts and predictions."""

from __future__ import annotations

from collections.abc import Sequence

from snapferry.stores.backend import Backend
from snapferry.stores.features import Priced, PricesCopies, feature_of
from snapferry.stores.requests import RequestAccounting, Requests

from .existence import requests_to_ask, requests_to_ask_among


class PoolAccounting(RequestAccounting):
    """The requests of a store with its *objects* and *manifests* on these backends."""

    def __init__(self, objects: Backend, manifests: Backend) -> None:
        self._backends = [objects] if objects is manifests else [objects, manifests]
        self._objects = feature_of(objects, Priced)
        self._copies = feature_of(objects, PricesCopies)
        self._manifests = feature_of(manifests, Priced)
        self._pages_listings = objects.capabilities.pages_listings

    def sent(self) -> Requests:
        return sum(self.by_kind().values(), Requests())

    def by_kind(self) -> dict[str, Requests]:
        found: dict[str, Requests] = {}
        for backend in self._backends:
            kind = backend.label.partition("://")[0]
            priced = feature_of(backend, Priced)
            found[kind] = found.get(kind, Requests()) + (
                Requests() if priced is None else priced.requests_sent
            )
        return found

    def to_survey(self, wanted: int, keys_between: int) -> Requests:
        return requests_to_ask(wanted, keys_between) if self._pages_listings else Requests()

    def to_survey_among(self, wanted: Sequence[str], there: Sequence[str]) -> Requests:
        return requests_to_ask_among(wanted, there) if self._pages_listings else Requests()

    def to_read_object(self, size: int) -> Requests:
        return Requests() if self._objects is None else self._objects.requests_to_read(size)

    def to_write_object(self, size: int) -> Requests:
        return Requests() if self._objects is None else self._objects.requests_to_write(size)

    def to_read_parts(self, parts: int) -> Requests:
        return Requests() if self._copies is None else self._copies.requests_to_read_parts(parts)

    def to_write_parts(self, parts: int) -> Requests:
        return Requests() if self._copies is None else self._copies.requests_to_write_parts(parts)

    def to_copy_on_server(self, size: int) -> Requests:
        return Requests() if self._copies is None else self._copies.requests_to_copy_on_server(size)

    def to_read_manifest(self) -> Requests:
        return self._to_read(0)

    def to_publish(self, length: int, *, already: bool) -> Requests:
        reading = self._to_read(length)
        if already or self._manifests is None:
            return reading
        return reading + self._manifests.requests_to_write(length) + reading

    def _to_read(self, length: int) -> Requests:
        return Requests() if self._manifests is None else self._manifests.requests_to_read(length)
