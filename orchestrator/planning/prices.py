"""
The price table: what requests to stores and bytes read from them cost, as a TOML file.

    currency = "USD"

    [[price]]
    store = "s3://"            # the longest match with the beginning of a store's URL counts
    egress = 0.09              # for 10**9 bytes read from it
    [price.requests]           # for 1,000 of each
    GetObject = 0.0004
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from snapferry.stores import requests
from snapferry.stores.text.printable import subject
from snapferry.stores.text.similar import suggestion
from snapferry.workers.messages import Price
from snapferry.workers.settings.toml_file import InvalidToml, read_toml

OPERATIONS: Final = frozenset(value for name, value in vars(requests).items() if name.isupper())


class InvalidPrices(Exception):
    """A price table cannot be used. The message names the file and the error, in one line."""


@dataclass(frozen=True)
class PriceTable:
    """Prices of requests and of bytes read, all in one *currency*."""

    currency: str
    prices: tuple[Price, ...]

    def has_price_for(self, url: str) -> bool:
        """Return whether there is a price for the store at *url*."""
        return any(url.startswith(price.store) for price in self.prices)


def read_prices(path: str) -> PriceTable:
    """Read the price table at *path*. Raises `InvalidPrices`."""
    try:
        found = read_toml(path)
    except InvalidToml as error:
        raise InvalidPrices(f"price table {subject(path)}: {error}") from None
    return _Table(path).read(found)


class _Table:
    """Reads the prices from a parsed table. *path* is for error messages."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, found: Mapping[str, Any]) -> PriceTable:
        self._only(found, ("currency", "price"), "")
        currency, listed = found.get("currency"), found.get("price")
        if not isinstance(currency, str) or not currency.isprintable() or not currency.strip():
            self._wrong('currency must be a text, as in currency = "USD"')
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            self._wrong("it must have at least one [[price]]")
        prices = tuple(self._price(one, f"price {number}: ") for number, one in enumerate(listed, 1))
        stores = [price.store for price in prices]
        for store in stores:
            if stores.count(store) > 1:
                self._wrong(f"more than one price for {store!r}")
        return PriceTable(currency, prices)

    def _price(self, found: Mapping[str, Any], where: str) -> Price:
        self._only(found, ("store", "egress", "requests"), where)
        store, sent = found.get("store"), found.get("requests", {})
        if not isinstance(store, str) or "://" not in store:
            self._wrong(f'{where}store must be the beginning of a store\'s URL, as in store = "s3://"')
        if not isinstance(sent, dict):
            self._wrong(f"{where}requests must be a table, [price.requests]")
        for name in sent:
            if name not in OPERATIONS:
                known = f"known: {', '.join(sorted(OPERATIONS))}"
                self._wrong(f"{where}unknown request {name!r}{suggestion(name, OPERATIONS)}; {known}")
        return Price(
            store=store,
            egress=self._amount(found.get("egress", 0), f"{where}egress"),
            requests={name: self._amount(amount, f"{where}{name}") for name, amount in sent.items()},
        )

    def _amount(self, found: object, name: str) -> float:
        amount = math.nan
        if isinstance(found, int | float) and not isinstance(found, bool):
            with suppress(OverflowError):
                amount = float(found)
        if not math.isfinite(amount) or amount < 0:
            self._wrong(f"{name} must be a number of at least 0")
        return amount

    def _only(self, found: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        for name in found:
            if name not in known:
                self._wrong(
                    f"{where}unknown key {name!r}{suggestion(name, known)}; known: {', '.join(known)}"
                )

    def _wrong(self, what: str) -> NoReturn:
        raise InvalidPrices(f"price table {subject(self._path)}: {what}")
